//! The mirror against a real kernel, in network namespaces of its own. Needs root; says so without.

use ipnet::IpNet;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidegate::config::{PartialChecksums, PortConfig, Select};
use tidegate::netlink::{Derived, Mirror, MirrorHandle, PortBinding, Resolver};
use tidegate_dataplane::addr::{Addr, Mac};
use tidegate_dataplane::names::ZoneId;
use tidegate_dataplane::route::{PortId, Route};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two namespaces joined by a veth pair: `a0` in ours, `b0` in the neighbour's.
struct Lab {
    ours: String,
    theirs: String,
}

impl Lab {
    fn new() -> Option<Lab> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root for network namespaces");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("tg-mirror-{}-{number}{side}", std::process::id());
        let lab = Lab { ours: name("a"), theirs: name("b") };
        ip(&["netns", "add", &lab.ours]);
        ip(&["netns", "add", &lab.theirs]);
        lab.link();
        Some(lab)
    }

    fn link(&self) {
        ip(&[
            "link",
            "add",
            "a0",
            "netns",
            &self.ours,
            "type",
            "veth",
            "peer",
            "name",
            "b0",
            "netns",
            &self.theirs,
        ]);
        self.on(&["link", "set", "a0", "up"]);
        ip(&["-n", &self.theirs, "link", "set", "b0", "up"]);
        ip(&["-n", &self.theirs, "address", "add", "10.9.0.2/24", "dev", "b0"]);
        self.on(&["address", "add", "10.9.0.1/24", "dev", "a0"]);
    }

    /// `ip` in our namespace.
    fn on(&self, arguments: &[&str]) {
        let mut all = vec!["-n", self.ours.as_str()];
        all.extend(arguments);
        ip(&all);
    }

    /// Runs a mirror in our namespace, and `test` beside it.
    fn run<F: Future<Output = ()>>(&self, test: impl FnOnce(MirrorHandle) -> F + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.ours)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let (mirror, handle) = Mirror::new(vec![binding()]);
                    let task = tokio::spawn(mirror.run());
                    tokio::time::timeout(Duration::from_secs(60), test(handle))
                        .await
                        .expect("the test hangs");
                    task.abort();
                });
            });
            thread.join().unwrap();
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn binding() -> PortBinding {
    let config = PortConfig {
        name: "inside".into(),
        zone: "inside".into(),
        select: Select::Interface("a0".into()),
        partial_checksums: PartialChecksums::Auto,
    };
    PortBinding { id: PortId(0), config, zone: Some(ZoneId(0)) }
}

/// Waits until the mirror's newest state is as wanted; returns its generation.
async fn until(mirror: &MirrorHandle, what: &str, wanted: impl Fn(&Derived) -> bool) -> u32 {
    let mut updates = mirror.updates();
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            {
                let update = updates.borrow_and_update();
                if wanted(&update.derived) {
                    return update.snapshot.generation();
                }
            }
            updates.changed().await.unwrap();
        }
    });
    found.await.unwrap_or_else(|_| panic!("never: {what}; {:?}", mirror.updates().borrow().derived))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

#[test]
fn routes_are_followed_with_metrics_ways_and_refusals() {
    // Red when an attribute is read wrong, or a change is not followed.
    let Some(lab) = &Lab::new() else { return };
    lab.run(|mirror| async move {
        mirror.set_open(PortId(0), None);
        until(&mirror, "the connected route", |d| d.routes.contains_key(&net("10.9.0.0/24"))).await;
        lab.on(&["route", "add", "default", "via", "10.9.0.3", "metric", "50"]);
        lab.on(&["route", "add", "default", "via", "10.9.0.4", "metric", "10", "mtu", "1400"]);
        let gateway = |d: &Derived, prefix: &str| match d.routes.get(&net(prefix)) {
            Some(Route::Via(hops)) => hops.iter().map(|h| (h.gateway, h.weight, h.mtu, h.port)).collect(),
            _ => Vec::new(),
        };
        let best = vec![(Some(addr("10.9.0.4")), 1, Some(1400), Some(PortId(0)))];
        until(&mirror, "the lower metric", |d| gateway(d, "0.0.0.0/0") == best).await;
        lab.on(&["route", "del", "default", "metric", "10"]);
        let next = vec![(Some(addr("10.9.0.3")), 1, None, Some(PortId(0)))];
        until(&mirror, "the next best", |d| gateway(d, "0.0.0.0/0") == next).await;
        lab.on(&[
            "route",
            "add",
            "10.7.0.0/16",
            "nexthop",
            "via",
            "10.9.0.5",
            "weight",
            "3",
            "nexthop",
            "via",
            "10.9.0.6",
        ]);
        let ways = |d: &Derived| gateway(d, "10.7.0.0/16").iter().map(|h| h.1).collect::<Vec<_>>();
        until(&mirror, "both ways", |d| ways(d) == [3, 1]).await;
        lab.on(&["-6", "address", "add", "2001:db8:9::1/64", "dev", "a0", "nodad"]);
        lab.on(&[
            "-6",
            "route",
            "add",
            "2001:db8:7::/48",
            "nexthop",
            "via",
            "2001:db8:9::5",
            "nexthop",
            "via",
            "2001:db8:9::6",
        ]);
        until(&mirror, "both IPv6 ways", |d| gateway(d, "2001:db8:7::/48").len() == 2).await;
        lab.on(&["-6", "route", "del", "2001:db8:7::/48", "via", "2001:db8:9::5"]);
        until(&mirror, "one IPv6 way", |d| gateway(d, "2001:db8:7::/48").len() == 1).await;
        for (kind, route) in [
            ("blackhole", Route::Blackhole),
            ("unreachable", Route::Unreachable),
            ("prohibit", Route::Prohibit),
        ] {
            lab.on(&["route", "replace", kind, "10.6.0.0/16"]);
            until(&mirror, kind, |d| d.routes.get(&net("10.6.0.0/16")) == Some(&route)).await;
        }
        lab.on(&["route", "add", "10.5.0.0/16", "via", "10.9.0.3", "table", "100"]);
        lab.on(&["rule", "add", "from", "10.5.0.0/16", "table", "100"]);
        lab.on(&["route", "add", "10.4.0.0/16", "via", "10.9.0.3"]);
        until(&mirror, "main only", |d| d.routes.contains_key(&net("10.4.0.0/16"))).await;
        assert!(!mirror.updates().borrow().derived.routes.contains_key(&net("10.5.0.0/16")));
        while mirror.status().notes.len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn only_what_forwarding_depends_on_makes_a_new_generation() {
    // Red when a mere change of a neighbour's state, or of nothing, replaces the snapshot.
    let Some(lab) = &Lab::new() else { return };
    lab.run(|mirror| async move {
        let at = |d: &Derived| d.neighbours.get(&(PortId(0), addr("10.9.0.7"))).copied();
        lab.on(&["neigh", "add", "10.9.0.7", "lladdr", "02:00:00:00:00:07", "dev", "a0", "nud", "permanent"]);
        let before = until(&mirror, "a static neighbour", |d| at(d) == Some(Mac([2, 0, 0, 0, 0, 7]))).await;
        // Nobody is told of a change that matters to nobody.
        let stale = async |count: usize| {
            while mirror.updates().borrow().stale.len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            mirror.updates().borrow().snapshot.generation()
        };
        let replace = |state: &str| {
            let mac = "02:00:00:00:00:07";
            lab.on(&["neigh", "replace", "10.9.0.7", "lladdr", mac, "dev", "a0", "nud", state]);
        };
        // Addresses that become usable and the like may come between: of some attempts one is undisturbed.
        let mut quiet = before;
        let mut undisturbed = false;
        for _ in 0..5 {
            replace("reachable");
            quiet = stale(0).await;
            replace("stale");
            undisturbed |= stale(1).await == quiet;
        }
        assert!(undisturbed, "each change of the state made a generation");
        lab.on(&["neigh", "replace", "10.9.0.7", "lladdr", "02:00:00:00:00:08", "dev", "a0", "nud", "stale"]);
        let after = until(&mirror, "the new MAC", |d| at(d) == Some(Mac([2, 0, 0, 0, 0, 8]))).await;
        assert!(after > quiet);
        lab.on(&["neigh", "del", "10.9.0.7", "dev", "a0"]);
        until(&mirror, "no neighbour", |d| at(d).is_none()).await;
    });
}

#[test]
fn an_interface_that_is_made_again_is_found_under_its_new_index() {
    // Red when the old index stays, or an IPv4 route that went without a word is kept.
    let Some(lab) = &Lab::new() else { return };
    lab.run(|mirror| async move {
        let index = |d: &Derived| d.ports.first().and_then(|p| p.link.as_ref()).map(|l| l.index);
        until(&mirror, "the interface", |d| index(d).is_some()).await;
        let first = index(&mirror.updates().borrow().derived).unwrap();
        mirror.set_open(PortId(0), Some(first));
        until(&mirror, "an open port is up", |d| d.infos.first().is_some_and(|i| i.up)).await;
        lab.on(&["link", "set", "a0", "down"]);
        until(&mirror, "down", |d| {
            d.infos.first().is_some_and(|i| !i.up) && !d.routes.contains_key(&net("10.9.0.0/24"))
        })
        .await;
        lab.on(&["link", "del", "a0"]);
        until(&mirror, "gone", |d| index(d).is_none() && !d.local.contains(&addr("10.9.0.1"))).await;
        let problem = mirror.updates().borrow().derived.ports[0].problem.clone();
        assert_eq!(problem.as_deref(), Some("there is no interface a0"));
        lab.link();
        until(&mirror, "back", |d| index(d).is_some_and(|i| i != first)).await;
        let derived = mirror.updates().borrow().derived.clone();
        assert!(!derived.infos[0].up, "the new interface is not open yet");
        assert!(derived.ports[0].partial_checksums, "a veth hands over partial checksums");
    });
}

#[test]
fn a_missing_neighbour_is_resolved_by_the_kernel() {
    // Red when the request lacks NTF_USE or the interface: the kernel would not ask for it.
    let Some(lab) = &Lab::new() else { return };
    lab.run(|mirror| async move {
        until(&mirror, "the interface", |d| d.ports.first().is_some_and(|p| p.link.is_some())).await;
        let (resolver, task) = Resolver::new(mirror.updates());
        tokio::spawn(task);
        for _ in 0..100 {
            resolver.missing(PortId(0), addr("10.9.0.2"));
        }
        until(&mirror, "resolved", |d| d.neighbours.contains_key(&(PortId(0), addr("10.9.0.2")))).await;
        assert_eq!(resolver.stats().requested.load(Ordering::Relaxed), 1, "asked once, not for each packet");
        assert_eq!(resolver.stats().left_out.load(Ordering::Relaxed), 99);
    });
}

#[test]
fn a_neighbour_that_was_entered_for_good_stays_so() {
    // Red when what is asked for is not looked at first: the kernel takes NUD_PERMANENT from whoever is to be used, and
    // nobody answers for this one.
    let Some(lab) = &Lab::new() else { return };
    lab.run(|mirror| async move {
        until(&mirror, "the interface", |d| d.ports.first().is_some_and(|p| p.link.is_some())).await;
        let lasting = "10.9.0.77";
        lab.on(&[
            "neigh",
            "replace",
            lasting,
            "lladdr",
            "02:00:00:00:00:77",
            "dev",
            "a0",
            "nud",
            "permanent",
        ]);
        let (resolver, task) = Resolver::new(mirror.updates());
        tokio::spawn(task);
        // As a packet that comes before the mirror has heard of it does. They are asked for in turn.
        for address in [lasting, "10.9.0.2"] {
            resolver.missing(PortId(0), addr(address));
        }
        until(&mirror, "resolved", |d| d.neighbours.contains_key(&(PortId(0), addr("10.9.0.2")))).await;
        let shown = Command::new("ip").args(["-n", &lab.ours, "neigh", "show", lasting]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("PERMANENT"), "{shown}");
    });
}

#[test]
fn lost_events_end_in_a_full_read() {
    // Red when an overrun is ignored: the routes whose events were lost would be missing for a minute.
    let Some(lab) = &Lab::new() else { return };
    lab.run(|mirror| async move {
        until(&mirror, "the connected route", |d| d.routes.contains_key(&net("10.9.0.0/24"))).await;
        let batch = std::env::temp_dir().join(format!("{}.batch", lab.ours));
        let lines: String = (0..60_000u32)
            .map(|n| format!("route add 172.{}.{}.{}/32 dev a0\n", 16 + (n >> 16), n >> 8 & 255, n & 255))
            .collect();
        std::fs::write(&batch, lines).unwrap();
        // Blocks this thread, and with it the mirror: its socket's buffer overflows.
        lab.on(&["-batch", batch.to_str().unwrap()]);
        std::fs::remove_file(batch).unwrap();
        until(&mirror, "all routes", |d| d.routes.len() >= 60_000).await;
        assert!(mirror.status().resyncs >= 1, "the buffer did not overflow: the test proves nothing");
    });
}
