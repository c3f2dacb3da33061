//! Sizes of rings.

use crate::error::PortError;
use afxdp::PENDING_LEN;

/// Sizes of a socket's rings, in frames; each a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Receive ring.
    pub rx: u32,
    /// Transmit and completion ring.
    pub tx: u32,
    /// Fill ring, and the number of frames lent for receiving.
    pub fill: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        RingSizes { rx: 2048, tx: 2048, fill: 2048 }
    }
}

impl RingSizes {
    /// Frames that a worker with so many sockets needs for none of them to wait for another: full fill
    /// and transmit rings, and a batch and a full hand-over ring in its hands.
    pub fn frames_per_worker(&self, sockets: u32) -> u32 {
        sockets.max(1).saturating_mul(self.fill.saturating_add(self.tx)).saturating_add(1024)
    }

    /// Whether the kernel and `afxdp` take them.
    pub fn check(&self) -> Result<(), PortError> {
        let possible = |n: u32| n.is_power_of_two() && (64..=RING_MAX).contains(&n);
        if possible(self.rx) && possible(self.tx) && possible(self.fill) {
            return Ok(());
        }
        Err(PortError::Rings { rx: self.rx, tx: self.tx, fill: self.fill })
    }
}

/// Most frames of a ring: what the queues of `afxdp` hold ([`PENDING_LEN`]) with room to spare.
const RING_MAX: u32 = PENDING_LEN as u32 / 2;
