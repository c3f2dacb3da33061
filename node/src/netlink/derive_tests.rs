use super::*;
use crate::netlink::kernel::Neighbour;

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        mac: Some(Mac([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        admin_up: true,
        up: true,
        partial_checksums: name.starts_with("veth"),
        rx_queues: 1,
    }
}

fn route(prefix: &str, metric: u32, kind: RouteKind, links: &[u32]) -> KernelRoute {
    let hops = links
        .iter()
        .map(|l| Hop { link: *l, gateway: None, weight: 1, dead: false, encapsulated: false })
        .collect();
    KernelRoute { prefix: net(prefix), metric, kind, hops, mtu: None }
}

fn kernel() -> Kernel {
    let mut k = Kernel::default();
    for l in [link(1, "veth1"), link(2, "eth2"), link(3, "eth3")] {
        k.links.insert(l.index, l);
    }
    for (l, n) in [(1, "10.1.0.1/24"), (1, "fe80::1/64"), (1, "2001:db8:1::1/64"), (2, "10.2.0.1/24")] {
        k.addresses.push(LinkAddress { link: l, net: net(n), usable: true, secondary: false });
    }
    k
}

fn binding(id: u8, select: Select) -> PortBinding {
    let config = PortConfig {
        name: format!("p{id}"),
        zone: "z".into(),
        select,
        partial_checksums: PartialChecksums::Auto,
    };
    PortBinding { id: PortId(id), config, zone: Some(ZoneId(0)) }
}

fn derived(k: &Kernel) -> Derived {
    let bindings =
        [binding(0, Select::Interface("veth1".into())), binding(1, Select::Prefix(net("10.2.0.0/24")))];
    derive(k, &bindings, &|_, _| true)
}

#[test]
fn ports_are_found_by_name_address_and_prefix_and_never_twice() {
    // Without the `taken` map two ports would open one interface.
    let k = kernel();
    let d = derived(&k);
    assert_eq!(d.ports[0].link.as_ref().unwrap().index, 1);
    assert_eq!(d.ports[1].link.as_ref().unwrap().index, 2);
    assert!(d.ports[0].partial_checksums && !d.ports[1].partial_checksums);
    let twice = [
        binding(0, Select::Interface("veth1".into())),
        binding(1, Select::Address("10.1.0.1".parse().unwrap())),
    ];
    let d = derive(&k, &twice, &|_, _| true);
    assert_eq!(d.ports[1].problem.as_deref(), Some("veth1 is port \"p0\" already"));
    let d = derive(&k, &[binding(0, Select::Prefix(net("10.0.0.0/8")))], &|_, _| true);
    assert!(d.ports[0].problem.as_deref().unwrap().contains("more than one"));
}

#[test]
fn a_port_that_is_not_open_is_down() {
    // Take the kernel's word alone and packets would go to a port without sockets.
    let d = derive(&kernel(), &[binding(0, Select::Interface("veth1".into()))], &|_, _| false);
    assert!(!d.infos[0].up);
}

#[test]
fn icmp_errors_come_from_a_global_address_when_there_is_one() {
    // Take the first address instead and the link-local one is chosen.
    let d = derived(&kernel());
    assert_eq!(d.infos[0].ipv6.unwrap().to_string(), "2001:db8:1::1");
    assert_eq!(d.infos[1].ipv6, None);
}

#[test]
fn the_lowest_metric_wins_and_dead_ways_do_not_count() {
    // Compare metrics the other way round, or keep dead ways, and a route leads elsewhere.
    let mut k = kernel();
    k.routes.push(route("0.0.0.0/0", 200, RouteKind::Unicast, &[2]));
    k.routes.push(route("0.0.0.0/0", 100, RouteKind::Unicast, &[1]));
    let port = |d: &Derived| match &d.routes[&net("0.0.0.0/0")] {
        Route::Via(hops) => hops[0].port,
        _ => None,
    };
    assert_eq!(port(&derived(&k)), Some(PortId(0)));
    k.routes[1].hops[0].dead = true;
    assert_eq!(port(&derived(&k)), Some(PortId(1)));
}

#[test]
fn refusals_multipath_and_foreign_interfaces_are_kept_apart() {
    // Drop `encapsulated` or the link lookup and a tunnel's packets would leave in the clear.
    let mut k = kernel();
    k.routes.push(route("10.9.0.0/16", 0, RouteKind::Blackhole, &[]));
    k.routes.push(route("10.8.0.0/16", 0, RouteKind::Prohibit, &[]));
    k.routes.push(route("10.7.0.0/16", 0, RouteKind::Unicast, &[1, 2, 3]));
    k.routes[2].hops[1].encapsulated = true;
    let d = derived(&k);
    assert_eq!(d.routes[&net("10.9.0.0/16")], Route::Blackhole);
    assert_eq!(d.routes[&net("10.8.0.0/16")], Route::Prohibit);
    let Route::Via(hops) = &d.routes[&net("10.7.0.0/16")] else { panic!() };
    assert_eq!(hops.iter().map(|h| h.port).collect::<Vec<_>>(), [Some(PortId(0)), None, None]);
}

#[test]
fn local_addresses_hold_broadcasts_and_no_forwarding_route() {
    // Forward by the local table and the node's own addresses become transit.
    let mut k = kernel();
    k.routes.push(route("10.1.0.255/32", 0, RouteKind::Local, &[]));
    k.routes.push(route("127.0.0.0/8", 0, RouteKind::Local, &[]));
    let d = derived(&k);
    let local: Vec<String> = d.local.iter().map(ToString::to_string).collect();
    assert!(local.contains(&"10.1.0.255".to_owned()) && local.contains(&"10.1.0.1".to_owned()));
    assert!(d.routes.is_empty());
}

#[test]
fn staleness_alone_changes_nothing_that_forwarding_depends_on() {
    // Carry `stale` into `Derived` and every REACHABLE -> STALE would bump the generation.
    let mut k = kernel();
    let key = (1, "10.1.0.9".parse().unwrap());
    k.neighbours.insert(key, Neighbour { mac: Mac([2; 6]), stale: false });
    let before = derived(&k);
    k.neighbours.insert(key, Neighbour { mac: Mac([2; 6]), stale: true });
    assert_eq!(derived(&k), before);
    k.neighbours.insert(key, Neighbour { mac: Mac([4; 6]), stale: true });
    assert_ne!(derived(&k), before);
}
