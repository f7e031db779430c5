//! A server: started, served, ended in order.

use crate::app::App;
use crate::checkpoints::LiveRecord;
use crate::http::router;
use crate::routed::RoutedModel;
use crate::{Limits, ServerConfig, ServerError};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use posttrain_model::TextModel;
use posttrain_rollout::EngineConfig;
use posttrain_rollout::service::{SamplingService, SamplingServiceConfig};
use posttrain_train::{TrainError, TrainingService, TrainingServiceConfig};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// How often what has expired is looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How long connections may take to end once everything is done.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// A model in service: one process's, for any number of clients.
///
/// See the [crate's documentation](crate) for what it speaks and an example.
pub struct Server {
    app: Arc<App>,
    sampling: SamplingService,
}

impl Server {
    /// Starts the threads that sample and train, and opens the folder of checkpoints. `run` is the
    /// folder of an experiment whose specialists are served behind its router. Called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`ServerError::Config`] names a field that is out of range; [`ServerError::Store`] a folder
    /// that another server has; [`ServerError::Experiment`] what is wrong with the run.
    pub fn start(
        model: TextModel,
        config: ServerConfig,
        run: Option<&Path>,
    ) -> Result<Self, ServerError> {
        config.validate()?;
        let Limits { keep_tokens, prefill_tokens, .. } = config.limits;
        let sampling = SamplingServiceConfig {
            engine: EngineConfig { keep_tokens, prefill_tokens, ..EngineConfig::default() },
            max_pending: config.limits.pending,
        };
        let decoder = model.decoder.clone();
        let sampling =
            SamplingService::start(decoder.clone(), Some(model.tokenizer.clone()), sampling)?;
        let share_passes = config.share_passes;
        let training = TrainingServiceConfig { max_queued: config.limits.pending, share_passes };
        let training = TrainingService::with_config(decoder, training)?;

        let runtime = tokio::runtime::Handle::current();
        let routed = run.map(|folder| RoutedModel::open(folder, &model, runtime)).transpose()?;
        let app = App::new(config, model, sampling.client(), training, routed)?;
        Ok(Self { app: Arc::new(app), sampling })
    }

    /// Serves until `stop` comes; then takes nothing more, does what was taken, keeps every model
    /// in training for the next start, and ends.
    ///
    /// # Errors
    /// [`ServerError::OpenToAll`] for an address that others reach, on a server without keys;
    /// [`ServerError::Listen`] where the system tells no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let unknown = ([0, 0, 0, 0], 0).into();
        let address = listener.local_addr();
        let address = address.map_err(|source| ServerError::Listen { address: unknown, source })?;
        let Self { app, sampling } = self;
        app.config.check_address(address)?;

        let sweeper = tokio::spawn(sweep(app.clone()));
        let connections = Arc::new(Semaphore::new(app.config.limits.connections));
        let graceful = GracefulShutdown::new();
        let drained = async {
            stop.await;
            drain(&app).await;
        };
        let mut drained = std::pin::pin!(drained);
        // While the last calls are done, their clients still come for the results.
        loop {
            tokio::select! {
                () = &mut drained => break,
                (stream, permit) = accept(&listener, &connections) => {
                    connect(&app, stream, permit, &graceful);
                }
            }
        }

        drop(listener);
        sweeper.abort();
        let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
        if let Some(learning) = &app.learning {
            // It gives up what it is at within a look of the gate's, or a step.
            let own = learning.clone();
            let _ = tokio::task::spawn_blocking(move || own.end()).await;
        }
        sampling.shut_down();
        Ok(())
    }
}

/// Serves a connection until it ends.
fn connect(
    app: &Arc<App>,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    graceful: &GracefulShutdown,
) {
    let service = TowerToHyperService::new(router(app.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // What breaks a connection off is its client's matter.
        if let Err(error) = connection.await {
            tracing::debug!("a connection broke off: {error}");
        }
        drop(permit);
    });
}

/// How long an end waits for answers that nothing but their readers holds up.
const SLOW_READERS: Duration = Duration::from_secs(120);

/// Refuses what is new, waits for what was taken, and keeps what is in memory alone.
async fn drain(app: &Arc<App>) {
    app.stopping.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let mut told = began;
    // Whoever reads an answer too slowly is not waited for without end.
    let answering = || Arc::strong_count(&app.answering) > 1 && began.elapsed() < SLOW_READERS;
    while app.promises.pending() > 0 || answering() {
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            let answers = Arc::strong_count(&app.answering) - 1;
            tracing::warn!("{} requests are still being done", app.promises.pending() + answers);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A moment for the clients that wait for the last of them.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let models: Vec<_> = app.registry().models.values().cloned().collect();
    for model in models {
        let record = LiveRecord { applied: model.applied() };

        let own = app.clone();
        let of = model.clone();
        let kept = model.client.call(move |trainer| {
            own.checkpoints.write_live(&of.owner, &of.id, &record, |state| {
                trainer.save_state(state)?;
                // What passes have collected, no client sends again.
                trainer.save_gradient(state)
            })
        });
        match kept.await {
            Ok(()) => tracing::info!("model {} is kept for the next start", model.id),
            Err(error) => tracing::warn!("model {} cannot be kept: {}", model.id, told_of(&error)),
        }
    }
    app.write_sessions();
    app.write_results();
}

fn told_of(error: &TrainError) -> String {
    crate::refusal::with_sources(error)
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            // Nobody closes it.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return (stream, permit);
            }
            Err(error) => {
                // Out of file descriptors, as a rule: some will be free in a moment.
                tracing::warn!("a connection cannot be taken: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn sweep(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SWEEP.min(app.config.limits.session_timeout));
    loop {
        ticks.tick().await;
        let own = app.clone();
        // Removing folders waits for the disk.
        let _ = tokio::task::spawn_blocking(move || own.sweep()).await;
    }
}
