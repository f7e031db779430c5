//! c10d's store and its gloo process group.

use super::outcome;
use crate::TensorError;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

unsafe extern "C" {
    fn posttrain_store_open(
        host: *const c_char,
        port: u16,
        serves: bool,
        timeout_ms: i64,
        store: *mut *mut c_void,
    ) -> *const c_char;
    fn posttrain_store_add(
        store: *mut c_void,
        key: *const c_char,
        amount: i64,
        sum: *mut i64,
    ) -> *const c_char;
    fn posttrain_store_close(store: *mut c_void);
    fn posttrain_group_open(
        store: *mut c_void,
        prefix: *const c_char,
        interface: *const c_char,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        group: *mut *mut c_void,
    ) -> *const c_char;
    fn posttrain_group_close(group: *mut c_void);
    fn posttrain_group_all_reduce(group: *mut c_void, tensor: *const c_void) -> *const c_char;
    fn posttrain_group_broadcast(
        group: *mut c_void,
        tensor: *const c_void,
        root: c_int,
    ) -> *const c_char;
    fn posttrain_group_all_gather(
        group: *mut c_void,
        own: *const c_void,
        all: *const c_void,
    ) -> *const c_char;
}

/// c10d's `TCPStore`: keys and values that one process serves, and by which ranks find each other.
pub struct TcpStore(NonNull<c_void>);

/// c10d's `ProcessGroupGloo`: ranks that compute together, on the CPU. Every rank calls the same
/// operations in the same order; none waits longer than the group's timeout. After one that failed
/// the group is of no use.
pub struct ProcessGroup {
    group: NonNull<c_void>,
    rank: usize,
    size: usize,
}

// SAFETY: c10d's store locks what it shares among threads, and a group is used by one thread at a
// time, whichever that is: all its operations take `&mut self`.
unsafe impl Send for TcpStore {}
// SAFETY: as above; `&TcpStore` opens groups, and c10d locks the store's socket.
unsafe impl Sync for TcpStore {}
// SAFETY: as above.
unsafe impl Send for ProcessGroup {}

impl TcpStore {
    /// Serves the store at a port of this machine, or connects to the process that does, which may
    /// come later, but within `timeout`.
    ///
    /// # Errors
    /// [`TensorError::Shim`] says why it cannot be served or reached.
    pub fn open(
        host: &str,
        port: u16,
        serves: bool,
        timeout: Duration,
    ) -> Result<Self, TensorError> {
        let operation = "open the ranks' store";
        let host = c_string(operation, host)?;
        let mut store = std::ptr::null_mut();
        // SAFETY: `host` ends in a zero byte and outlives the call, as `store` does.
        outcome(operation, unsafe {
            posttrain_store_open(host.as_ptr(), port, serves, milliseconds(timeout), &mut store)
        })?;
        NonNull::new(store).map(Self).ok_or_else(|| nothing(operation))
    }

    /// Adds to the number at a key, which begins at zero, and says what it is then.
    ///
    /// # Errors
    /// [`TensorError::Shim`] where whoever serves the store is gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, TensorError> {
        let operation = "count in the ranks' store";
        let key = c_string(operation, key)?;
        let mut sum = 0;
        // SAFETY: the store lives as long as `self`, and `key` and `sum` outlive the call.
        outcome(operation, unsafe {
            posttrain_store_add(self.0.as_ptr(), key.as_ptr(), amount, &mut sum)
        })?;
        Ok(sum)
    }

    /// Joins the `size` ranks that open a group of the same prefix, by a network interface's name or
    /// else by the host's.
    ///
    /// # Errors
    /// [`TensorError::Shim`] where not all come within `timeout`, or cannot reach each other.
    pub fn group(
        &self,
        prefix: &str,
        interface: Option<&str>,
        (rank, size): (usize, usize),
        timeout: Duration,
    ) -> Result<ProcessGroup, TensorError> {
        let operation = "open a process group";
        let prefix = c_string(operation, prefix)?;
        let interface = c_string(operation, interface.unwrap_or_default())?;
        let mut group = std::ptr::null_mut();
        // SAFETY: the store lives as long as `self`; the group takes a reference of its own to it.
        // The texts end in zero bytes and outlive the call, as `group` does.
        outcome(operation, unsafe {
            posttrain_group_open(
                self.0.as_ptr(),
                prefix.as_ptr(),
                interface.as_ptr(),
                rank as c_int,
                size as c_int,
                milliseconds(timeout),
                &mut group,
            )
        })?;
        let group = NonNull::new(group).ok_or_else(|| nothing(operation))?;
        Ok(ProcessGroup { group, rank, size })
    }
}

impl ProcessGroup {
    /// This process's place, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Sums a contiguous tensor of the CPU over all ranks, in place; each has the same shape and
    /// kind of it, and the same sum to the last bit.
    ///
    /// # Errors
    /// [`TensorError::Device`] or [`TensorError::Strided`] for a tensor of another sort;
    /// [`TensorError::Shim`] where a rank does not come, or goes.
    pub fn all_reduce(&mut self, tensor: &Tensor) -> Result<(), TensorError> {
        check("tensor", tensor)?;
        // SAFETY: the pointer is that of the `at::Tensor` behind `tensor`, which outlives the call:
        // the operation is waited for. Nobody else writes it meanwhile: a `Tensor` is not `Sync`.
        outcome("sum over all ranks", unsafe {
            posttrain_group_all_reduce(self.group.as_ptr(), tensor.as_ptr().cast())
        })
    }

    /// Writes a rank's tensor into every other's, which has the same shape and kind.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_reduce`].
    pub fn broadcast(&mut self, tensor: &Tensor, root: usize) -> Result<(), TensorError> {
        check("tensor", tensor)?;
        // SAFETY: as in `all_reduce`.
        outcome("tell all ranks", unsafe {
            posttrain_group_broadcast(self.group.as_ptr(), tensor.as_ptr().cast(), root as c_int)
        })
    }

    /// Every rank's tensor `[n]`, as `[size, n]`.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_reduce`].
    pub fn all_gather(&mut self, own: &Tensor) -> Result<Tensor, TensorError> {
        check("own", own)?;
        let operation = "gather from all ranks";
        let rows = [self.size as i64, own.numel() as i64];
        let all = Tensor::f_zeros(rows, (own.kind(), Device::Cpu))?;
        // SAFETY: as in `all_reduce`, for both.
        outcome(operation, unsafe {
            posttrain_group_all_gather(
                self.group.as_ptr(),
                own.as_ptr().cast(),
                all.as_ptr().cast(),
            )
        })?;
        Ok(all)
    }
}

impl Drop for TcpStore {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `posttrain_store_open`, and nobody has it any more.
        unsafe { posttrain_store_close(self.0.as_ptr()) }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `posttrain_group_open`, and nobody has it any more.
        unsafe { posttrain_group_close(self.group.as_ptr()) }
    }
}

impl fmt::Debug for TcpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStore").finish_non_exhaustive()
    }
}

impl fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_struct("ProcessGroup");
        tuple.field("rank", &self.rank).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What gloo reads and writes in place.
fn check(argument: &'static str, tensor: &Tensor) -> Result<(), TensorError> {
    if tensor.device() != Device::Cpu {
        let got = tensor.device();
        return Err(TensorError::Device { argument, expected: Device::Cpu, got });
    }
    if !tensor.is_contiguous() {
        return Err(TensorError::Strided { argument, strides: tensor.stride() });
    }
    if !matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Int64 | Kind::Uint8) {
        let expected = "Float, Double, Int64 or Uint8";
        return Err(TensorError::Kind { argument, expected, got: tensor.kind() });
    }
    Ok(())
}

fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}

fn c_string(operation: &'static str, text: &str) -> Result<CString, TensorError> {
    CString::new(text)
        .map_err(|_| TensorError::Shim { operation, reason: format!("{text:?} holds a zero byte") })
}

/// What the C interface does not do.
fn nothing(operation: &'static str) -> TensorError {
    TensorError::Shim { operation, reason: "nothing came back".into() }
}
