//! A disk that loses or tears what was not synced.

use super::rng::mix;
use redb::StorageBackend;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is written as one: a crash leaves all or nothing of it.
const SECTOR: u64 = 512;

#[derive(Debug)]
enum Write {
    Data(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct Inner {
    /// As a reader sees it.
    now: Vec<u8>,
    /// As it was synced last.
    durable: Vec<u8>,
    unsynced: Vec<Write>,
    /// Counts crashes: who opened it before the last one reaches nothing any more.
    run: u64,
    /// The power fails at the write after so many.
    fails_after: Option<u64>,
    failed: bool,
}

/// What a crash did to the writes that were not synced.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Losses {
    pub(super) lost: u64,
    pub(super) torn: u64,
    pub(super) kept: u64,
}

/// A node's disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as the present run of the node sees it.
    pub(super) fn open(&self) -> Handle {
        Handle { run: self.inner().run, disk: self.clone() }
    }

    /// The power fails in the middle of what is written next, after `writes` writes or syncs.
    pub(super) fn fail_after(&self, writes: u64) {
        self.inner().fails_after = Some(writes);
    }

    /// Whether the power has failed meanwhile.
    pub(super) fn has_failed(&self) -> bool {
        self.inner().failed
    }

    /// The power fails. What was synced stays; of the rest each write stays, goes, or stays in part.
    /// What becomes of it follows from `nonce` and its place alone.
    pub(super) fn crash(&self, nonce: u64) -> Losses {
        let mut inner = self.inner();
        let mut losses = Losses::default();
        let mut after = std::mem::take(&mut inner.durable);
        for write in std::mem::take(&mut inner.unsynced) {
            match write {
                Write::Length(length) if mix(nonce ^ length).is_multiple_of(2) => {
                    after.resize(length as usize, 0);
                    losses.kept += 1;
                }
                Write::Length(_) => losses.lost += 1,
                Write::Data(at, bytes) => match mix(nonce ^ mix(at)) % 100 {
                    0..40 => {
                        place(&mut after, at, &bytes);
                        losses.kept += 1;
                    }
                    40..75 => losses.lost += 1,
                    _ => tear(&mut after, at, &bytes, nonce, &mut losses),
                },
            }
        }
        inner.now.clone_from(&after);
        inner.durable = after;
        (inner.fails_after, inner.failed) = (None, false);
        inner.run += 1;
        losses
    }
}

fn place(data: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[at as usize..end].copy_from_slice(bytes);
}

/// Some sectors of a write stay, others go.
fn tear(data: &mut Vec<u8>, at: u64, bytes: &[u8], nonce: u64, losses: &mut Losses) {
    let (mut kept, mut lost, mut from) = (false, false, at);
    let end = at + bytes.len() as u64;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if mix(nonce ^ mix(from).rotate_left(7)).is_multiple_of(2) {
            place(data, from, &bytes[(from - at) as usize..(to - at) as usize]);
            kept = true;
        } else {
            lost = true;
        }
        from = to;
    }
    match (kept, lost) {
        (true, true) => losses.torn += 1,
        (true, false) => losses.kept += 1,
        _ => losses.lost += 1,
    }
}

/// The disk of one run of a node; dead after the next crash.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    run: u64,
    disk: Disk,
}

impl Handle {
    fn alive(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let inner = self.disk.inner();
        match inner.run == self.run && !inner.failed {
            true => Ok(inner),
            false => Err(Error::other("the power has failed")),
        }
    }

    fn writing(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let mut inner = self.alive()?;
        match &mut inner.fails_after {
            Some(0) => {
                inner.failed = true;
                return Err(Error::other("the power fails"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(inner)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.alive()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let inner = self.alive()?;
        let from = offset as usize;
        let bytes = inner.now.get(from..from + out.len()).ok_or(Error::from(ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), Error> {
        let mut inner = self.writing()?;
        inner.now.resize(length as usize, 0);
        inner.unsynced.push(Write::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut inner = self.writing()?;
        for write in std::mem::take(&mut inner.unsynced) {
            match write {
                Write::Data(at, bytes) => place(&mut inner.durable, at, &bytes),
                Write::Length(length) => inner.durable.resize(length as usize, 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut inner = self.writing()?;
        place(&mut inner.now, offset, data);
        inner.unsynced.push(Write::Data(offset, data.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go() {
        // Copy `now` instead of `durable` at a crash and nothing is ever lost.
        let (mut lost, mut torn) = (0, 0);
        for nonce in 0..200 {
            let disk = Disk::default();
            let handle = disk.open();
            handle.write(0, &[1; 4_096]).unwrap();
            handle.sync_data().unwrap();
            handle.write(1_024, &[2; 2_048]).unwrap();
            let losses = disk.crash(nonce);
            lost += losses.lost;
            torn += losses.torn;
            assert!(handle.read(0, &mut [0]).is_err(), "the run before is over");
            let mut after = [0; 4_096];
            disk.open().read(0, &mut after).unwrap();
            assert!(after[..1_024].iter().chain(&after[3_072..]).all(|b| *b == 1));
            assert!(after.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0])));
        }
        assert!(lost > 40 && torn > 20, "{lost} lost, {torn} torn");
    }

    #[test]
    fn the_power_fails_in_the_middle() {
        let disk = Disk::default();
        let handle = disk.open();
        disk.fail_after(1);
        handle.write(0, &[1]).unwrap();
        assert!(handle.sync_data().is_err() && handle.write(0, &[1]).is_err());
        assert!(disk.has_failed());
        disk.crash(1);
        assert!(!disk.has_failed() && disk.open().sync_data().is_ok());
    }
}
