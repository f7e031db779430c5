//! What keeps a program that nobody trusts from the rest of the machine.

use std::fmt;

/// What holds for code that runs on this machine, as it was tried out when the reward was built.
///
/// A container or a kernel may forbid namespaces, and other systems than Linux have none. What is
/// `false` does not hold; what always holds is the wall-clock limit, the bound on output, an
/// environment without secrets and a fresh folder.
///
/// ```
/// use posttrain_reward::code::Isolation;
///
/// let isolation = Isolation { limits: true, ..Isolation::default() };
/// assert_eq!(isolation.gaps(), ["network", "processes", "files", "process_limit", "system_calls"]);
/// assert_eq!(isolation.to_string(), "limits hold; not isolated: network, processes, files, process_limit, system_calls");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolation {
    /// A network namespace of its own with no interface that is up: no network, and no service on
    /// this machine's loopback.
    pub network: bool,
    /// A PID namespace of its own: it sees and signals only its own processes, and all of them end
    /// with it, whatever group or session they moved to.
    pub processes: bool,
    /// Every file system is read-only to it but a folder of its own in memory, which ends with it.
    pub files: bool,
    /// Memory, processor time, file size and open files are limited.
    pub limits: bool,
    /// The number of its processes is limited. Not for root, whom the kernel exempts: a fork bomb
    /// is then stopped by the wall-clock limit alone.
    pub process_limit: bool,
    /// Calls that lead past the rest are refused: Unix sockets, which can be connected to by their
    /// place in a file system that is read-only, and memory that no limit counts (`memfd_create`,
    /// System V's shared memory).
    pub system_calls: bool,
}

impl Isolation {
    /// The names of what does not hold.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::code::Isolation::default().gaps().len(), 6);
    /// ```
    #[must_use]
    pub fn gaps(&self) -> Vec<&'static str> {
        self.named().into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name).collect()
    }

    fn named(self) -> [(&'static str, bool); 6] {
        let Self { network, processes, files, limits, process_limit, system_calls } = self;
        [
            ("network", network),
            ("processes", processes),
            ("files", files),
            ("limits", limits),
            ("process_limit", process_limit),
            ("system_calls", system_calls),
        ]
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held: Vec<_> =
            self.named().into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect();
        match (held.as_slice(), self.gaps().as_slice()) {
            (held, []) => write!(out, "{} hold", held.join(", ")),
            ([], gaps) => write!(out, "not isolated: {}", gaps.join(", ")),
            (held, gaps) => {
                write!(out, "{} hold; not isolated: {}", held.join(", "), gaps.join(", "))
            }
        }
    }
}
