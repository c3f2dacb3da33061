//! A disk for tests: it knows what was synced, and can lose or tear the rest, be full, or fail.

use redb::StorageBackend;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

/// One thing that was done to the disk.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    /// The test's: everything up to here was acknowledged.
    Ack,
}

#[derive(Debug, Default)]
struct State {
    image: Vec<u8>,
    ops: Vec<Op>,
    /// Longest image, in bytes.
    quota: Option<u64>,
    /// Fails from then on: counts writes and changes of length, or syncs.
    fail_write_in: Option<u64>,
    fail_sync_in: Option<u64>,
    closed: bool,
}

/// Cloned, it is the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn of(image: &[u8]) -> Self {
        let disk = Disk::default();
        disk.state().image = image.to_vec();
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn image(&self) -> Vec<u8> {
        self.state().image.clone()
    }

    pub(super) fn ops(&self) -> Vec<Op> {
        self.state().ops.clone()
    }

    pub(super) fn ack(&self) {
        self.state().ops.push(Op::Ack);
    }

    pub(super) fn closed(&self) -> bool {
        self.state().closed
    }

    pub(super) fn limit(&self, quota: Option<u64>) {
        self.state().quota = quota;
    }

    pub(super) fn fail_write_in(&self, count: u64) {
        self.state().fail_write_in = Some(count);
    }

    pub(super) fn fail_sync_in(&self, count: u64) {
        self.state().fail_sync_in = Some(count);
    }
}

/// Does `op` to an image.
pub(super) fn redo(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(at, data) => {
            let at = *at as usize;
            if image.len() < at + data.len() {
                image.resize(at + data.len(), 0);
            }
            image[at..at + data.len()].copy_from_slice(data);
        }
        Op::SetLen(len) => image.resize(*len as usize, 0),
        Op::Sync | Op::Ack => {}
    }
}

fn due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.state().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let state = self.state();
        let at = usize::try_from(offset).map_err(Error::other)?;
        let from = at.checked_add(out.len()).and_then(|end| state.image.get(at..end));
        out.copy_from_slice(from.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut state = self.state();
        if due(&mut state.fail_write_in) {
            return Err(Error::other("the medium gave up"));
        }
        if state.quota.is_some_and(|quota| len > quota) {
            return Err(ErrorKind::StorageFull.into());
        }
        let op = Op::SetLen(len);
        redo(&mut state.image, &op);
        state.ops.push(op);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut state = self.state();
        if due(&mut state.fail_sync_in) {
            return Err(Error::other("the medium gave up"));
        }
        state.ops.push(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut state = self.state();
        if due(&mut state.fail_write_in) {
            return Err(Error::other("the medium gave up"));
        }
        if state.quota.is_some_and(|quota| offset + data.len() as u64 > quota) {
            return Err(ErrorKind::StorageFull.into());
        }
        let op = Op::Write(offset, data.to_vec());
        redo(&mut state.image, &op);
        state.ops.push(op);
        Ok(())
    }

    fn close(&self) -> Result<(), Error> {
        self.state().closed = true;
        Ok(())
    }
}
