//! Ranks as threads and as processes: what they come to together, and what becomes of one that
//! fails, hangs, or differs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_collective::{
    Alone, Collective, CollectiveError, Rank, Threads, check_same, from_environment, gather, share,
};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::Tensor;

const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of every sort of ranks.
fn together(ranks: &dyn Collective) -> Result<(), CollectiveError> {
    let (rank, size) = (ranks.rank(), ranks.size());
    for kind in [tch::Kind::Float, tch::Kind::Double] {
        let own = Tensor::arange(5, (kind, tch::Device::Cpu)) + rank as f64;
        ranks.all_reduce(&own)?;
        let others = (0..size).sum::<usize>() as f64;
        let expected: Vec<f64> = (0..5).map(|i| (i * size) as f64 + others).collect();
        assert_eq!(Vec::<f64>::try_from(own.to_kind(tch::Kind::Double)).unwrap(), expected);
    }

    // Of different lengths, nothing among them.
    let of = |rank: usize| vec![rank as u8; rank * 3];
    let all = ranks.all_gather(&of(rank))?;
    assert_eq!(all, (0..size).map(of).collect::<Vec<_>>());
    let last = size - 1;
    assert_eq!(ranks.broadcast(last, &of(rank))?, of(last));
    assert!(ranks.broadcast(0, &of(0))?.is_empty());
    ranks.barrier()?;

    let own = (rank, f32::NAN, format!("rank {rank}"), Some(0.1f64));
    let values = gather(ranks, Ok::<_, CollectiveError>(own))?;
    for (rank, value) in values.iter().enumerate() {
        assert!((value.0, &value.2, value.3) == (rank, &format!("rank {rank}"), Some(0.1)));
        assert!(value.1.is_nan());
    }

    check_same(ranks, "configuration", b"same")?;
    if size > 1 {
        let own: &[u8] = if rank == 1 { b"other" } else { b"same" };
        let error = check_same(ranks, "configuration", own).unwrap_err();
        assert!(
            error.to_string().contains("rank 1 differs from rank 0 in its configuration"),
            "{error}"
        );

        // One that fails says so, and nobody waits for it.
        let failed = |reason: &str| CollectiveError::Rank { rank, reason: reason.into() };
        let own = if rank == 1 { Err(failed("no memory")) } else { Ok(1u8) };
        let error = gather(ranks, own).unwrap_err().to_string();
        assert!(error.contains("rank 1 failed: ") && error.contains("no memory"), "{error}");
        ranks.barrier()?;
    }

    // Two threads on two channels, in an order of each rank's own.
    let lines = [ranks.channel("one")?, ranks.channel("two")?];
    std::thread::scope(|scope| {
        for (index, line) in lines.iter().enumerate() {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(if index == rank % 2 { 30 } else { 0 }));
                for round in 0..20u8 {
                    let all = line.all_gather(&[index as u8, round]).unwrap();
                    assert!(all.iter().all(|other| *other == [index as u8, round]));
                }
            });
        }
    });
    Ok(())
}

#[test]
fn threads_compute_together() {
    together(&Alone).unwrap();
    for size in [1, 2, 3, 5] {
        std::thread::scope(|scope| {
            for rank in Threads::of(size, PATIENCE) {
                scope.spawn(move || together(&rank).unwrap());
            }
        });
    }
}

#[test]
fn shares_are_all_there_is_and_as_equal_as_they_can_be() {
    for total in 0..40 {
        for size in 1..9 {
            let shares: Vec<_> = (0..size).map(|rank| share(total, rank, size)).collect();
            assert_eq!(
                shares.iter().flat_map(Clone::clone).collect::<Vec<_>>(),
                Vec::from_iter(0..total)
            );
            let lengths = shares.iter().map(ExactSizeIterator::len);
            assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
        }
    }
}

#[test]
fn a_thread_that_does_not_come_is_named() {
    let mut ranks = Threads::of(3, Duration::from_millis(200));
    let late = ranks.remove(1);
    std::thread::scope(|scope| {
        for rank in ranks {
            scope.spawn(move || {
                let error = rank.barrier().unwrap_err().to_string();
                assert!(error.contains("rank 1 did not come within 0.2 s"), "{error}");
            });
        }
    });
    assert_eq!(late.size(), 3);
}

#[test]
fn torchruns_variables_are_read_and_checked() {
    let set = |changes: &[(&'static str, &str)]| {
        let all = [
            ("WORLD_SIZE", "4"),
            ("RANK", "3"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "node-0"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let value = |name: &'static str| {
            let changed = changes.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
            let given = all.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
            changed.or(given).filter(|value| *value != "unset").map(str::to_owned)
        };
        Rank::of(&value)
    };
    let rank = set(&[]).unwrap().unwrap();
    assert_eq!((rank.rank, rank.size, rank.local, rank.restarts), (3, 4, 1, 2));
    assert!(rank.agent_store && rank.store == ("node-0".to_owned(), 29500));
    assert_eq!(set(&[("WORLD_SIZE", "unset")]).unwrap(), None);

    let wrong = [
        ("RANK", "4", "RANK must be below WORLD_SIZE, got 4"),
        ("RANK", "unset", "RANK must be a number, as torchrun sets it, got none"),
        ("WORLD_SIZE", "0", "WORLD_SIZE must be 1 and up, got 0"),
        ("MASTER_PORT", "99999", "MASTER_PORT must be a number, as torchrun sets it, got 99999"),
        ("MASTER_ADDR", "unset", "MASTER_ADDR must be a host, got none"),
    ];
    for (name, value, expected) in wrong {
        let error = set(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

const ROLE: &str = "POSTTRAIN_TEST_ROLE";

/// What a rank does in a process of its own.
#[test]
#[ignore = "it is a rank of the tests below"]
fn rank_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // Long enough for all to be there, on a machine that is busy.
    let patience = if role == "together" { PATIENCE } else { Duration::from_secs(15) };
    let ranks = from_environment(patience).unwrap();
    match role.as_str() {
        "together" => together(&*ranks).unwrap(),
        "hang" => {
            ranks.barrier().unwrap();
            if ranks.rank() == 1 {
                std::thread::sleep(Duration::from_secs(25));
                return;
            }
            println!("told: {}", ranks.barrier().unwrap_err());
            // It serves the store, which the others ask who is missing. Under torchrun that does.
            if ranks.rank() == 0 {
                std::thread::sleep(Duration::from_secs(2));
            }
        }
        "time" => {
            // A rank-128 adapter of the demonstration model, in f32.
            let values = Tensor::ones([39_000_000], (tch::Kind::Float, tch::Device::Cpu));
            let mut seconds = Vec::new();
            for _ in 0..7 {
                ranks.barrier().unwrap();
                let started = Instant::now();
                ranks.all_reduce(&values).unwrap();
                seconds.push(started.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            println!("told: 39 M numbers in {:.3} s (median of 7)", seconds[3]);
        }
        other => panic!("no role {other}"),
    }
}

#[cfg(target_os = "linux")]
fn processes(role: &str, size: usize) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rank_process", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env("WORLD_SIZE", size.to_string())
            .env("RANK", rank.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..size).map(start).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn processes_compute_together_by_c10d() {
    for size in [2, 3] {
        for output in processes("together", size) {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_hangs_is_named_by_the_deadline() {
    let outputs = processes("hang", 3);
    for rank in [0, 2] {
        let text = String::from_utf8_lossy(&outputs[rank].stdout).into_owned();
        let expected = format!(
            "told: rank {rank} of 3: gather from all ranks: rank 1 did not come within 15 s"
        );
        assert!(
            text.contains(&expected),
            "{text}{}",
            String::from_utf8_lossy(&outputs[rank].stderr)
        );
    }
}

/// A figure, not a check: `cargo test -p posttrain-collective --release -- --ignored --nocapture all_reduce`.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "it measures"]
fn how_long_an_all_reduce_takes() {
    for size in [2, 3] {
        let outputs = processes("time", size);
        println!("{size} ranks: {}", String::from_utf8_lossy(&outputs[0].stdout));
    }
}
