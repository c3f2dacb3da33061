//! Flows by number, and a random order of them, both computed: no list takes part in the measurement.

use tidegate_dataplane::addr::{Addr, Key, proto};

/// IPv6 flow number `n`: clients all over a /64, one server.
#[inline]
pub(super) fn key(n: u32) -> Key {
    let scattered = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Key {
        low: Addr(0x2001_0db8_0000_0001 << 64 | u128::from(scattered)),
        high: Addr(0x2001_0db8_0000_0002 << 64 | 1),
        low_port: 1024 + (scattered >> 51) as u16,
        high_port: 443,
        protocol: proto::UDP,
    }
}

/// An endless random sequence of flow numbers below `count`, each as likely as the others.
#[derive(Clone)]
pub(super) struct RandomFlows {
    state: u64,
    count: u64,
}

impl RandomFlows {
    pub(super) fn new(seed: u32, count: u32) -> Self {
        RandomFlows { state: u64::from(seed) << 1 | 1, count: u64::from(count) }
    }

    #[inline]
    pub(super) fn draw(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (((self.state >> 32) * self.count) >> 32) as u32
    }
}
