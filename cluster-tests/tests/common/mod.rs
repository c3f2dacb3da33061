//! What every end-to-end test needs: a lab of its own that is gone afterwards, also when the test panics,
//! and then tells what its daemon had to say.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(unreachable_pub, reason = "shared by several test crates")]
#![allow(clippy::disallowed_methods, reason = "end-to-end tests live in real time")]

pub mod cluster;
pub mod forge;
pub mod fragments;
pub mod load;
pub mod raw;
pub mod repl;
pub mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::Once;
use std::time::{Duration, Instant};

use tidegate_lab::lab::{Forwarder, Lab, LabSpec};
use tidegate_lab::sys::Stop;

/// How long a test waits for what should come: it only ends a hang. A machine that is busy with other things may
/// leave a process standing for seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a test sends a datagram that gets no answer, and how long it waits for one each time: what waits for
/// neighbours is bounded, and the rest is lost.
pub const TRIES: u32 = 30;
pub const EACH_TRY: Duration = Duration::from_secs(2);

/// A lab that ends with the test.
pub struct TestLab {
    lab: Lab,
}

/// Makes a lab for one test. Names hold the process id: runs side by side do not meet.
pub fn lab(test: &str, adjust: impl FnOnce(&mut LabSpec)) -> TestLab {
    static SIGNALS: Once = Once::new();
    SIGNALS.call_once(remove_labs_on_signals);
    let mut spec = LabSpec::new(format!("{}{test}", prefix(std::process::id())));
    adjust(&mut spec);
    match Lab::up(spec, &Stop::default(), |_| ()) {
        Ok(lab) => TestLab { lab },
        Err(error) => panic!("cannot make the lab for {test}: {error}"),
    }
}

/// What the names of all labs of a test program begin with.
pub fn prefix(pid: u32) -> String {
    format!("t{pid}-")
}

/// The program that ran the tests was told to end: its labs go with it.
fn remove_labs_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).unwrap();
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        // Tests go on meanwhile, and may be about to make the next one.
        for _ in 0..3 {
            let prefix = prefix(std::process::id());
            for name in tidegate_lab::lab::list().into_iter().filter(|name| name.starts_with(&prefix)) {
                match tidegate_lab::lab::down(&name) {
                    Ok(removed) => eprintln!("interrupted: removed {}", removed.join(", ")),
                    Err(error) => eprintln!("interrupted: {error}"),
                }
            }
        }
        std::process::exit(128 + signal);
    });
}

/// The same with the kernel of the node's namespace forwarding: what the lab itself can do.
pub fn kernel_lab(test: &str, adjust: impl FnOnce(&mut LabSpec)) -> TestLab {
    lab(test, |spec| {
        spec.forwarder = Forwarder::Kernel;
        adjust(spec);
    })
}

impl TestLab {
    /// The server's address and a port.
    pub fn server_v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(ip(&self.lab.plan().server.ipv4), port)
    }

    /// The same over IPv6.
    pub fn server_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(ip(&self.lab.plan().server.ipv6), port)
    }
}

impl Deref for TestLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for TestLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for member in self.lab.members().filter(|member| member.pid().is_some()) {
            eprintln!("--- the log of {} ends with:\n{}\n---", member.name(), member.log_tail());
            if member.plan().ports.is_some()
                && let Ok(drops) = member.tidegate(&["drops", "--nonzero"])
            {
                eprintln!("--- drops:\n{}{}---", drops.stdout, drops.stderr);
            }
            // What was lost below the engine: on the way to a ring, or out of one.
            if let Ok(ports) = self.lab.tidegate(&["port", "list", "-o", "json"]) {
                eprintln!("--- ports:\n{}{}---", ports.stdout, ports.stderr);
            }
            for end in [self.lab.node(), self.lab.client(), self.lab.server()] {
                let devices = end.proc_net("dev").unwrap_or_default();
                eprintln!("--- devices of {}:\n{devices}---", end.name());
            }
        }
    }
}

/// An address that a plan holds as text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("the plan's addresses are addresses")
}

/// Looks until `check` gives something, at most `patience`.
pub fn eventually<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lets time pass.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// The clock, for measuring.
pub fn now() -> Instant {
    Instant::now()
}
