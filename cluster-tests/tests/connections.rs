//! Many real TCP connections, opened and closed through the node.

mod common;

use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Churn, ChurnReport, churn};

use common::{TestLab, ip, kernel_lab, lab};

/// Client addresses: with eight server ports, 64 tuples share each ephemeral port.
const SOURCES: u32 = 8;

/// 200,000 in `make soak` (`TIDEGATE_SOAK`), a tenth otherwise.
fn connections() -> u64 {
    if std::env::var_os("TIDEGATE_SOAK").is_some() { 200_000 } else { 20_000 }
}

/// Red when one segment of a handshake or close is dropped for good (an error), or some are dropped now and then
/// (retransmissions beyond those of the same run through kernel forwarding).
#[test]
fn connections_open_and_close_without_one_error() {
    let report = {
        let lab = lab("conns", |spec| spec.client_addresses = SOURCES - 1);
        let report = run(&lab);
        let ended = lab.drops("tcp_no_session").unwrap() + lab.drops("tcp_out_of_state").unwrap();
        eprintln!("tidegate: {report:?}; dropped out of state: {ended}");
        report
    };
    let kernel = run(&kernel_lab("connsk", |spec| spec.client_addresses = SOURCES - 1));
    eprintln!("kernel:   {kernel:?}");
    assert_eq!((kernel.completed, kernel.failed), (connections(), 0), "{:?}", kernel.errors);
    assert_eq!((report.completed, report.failed), (connections(), 0), "{:?}", report.errors);
    // A connection is ten segments or more; one in 100,000 of them is below what the kernel's own runs differ by.
    let allowance = connections() / 10_000;
    assert!(
        report.retransmissions <= kernel.retransmissions + allowance,
        "{} retransmissions; through the kernel {}",
        report.retransmissions,
        kernel.retransmissions
    );
}

fn run(lab: &TestLab) -> ChurnReport {
    let plan = Churn {
        connections: connections(),
        concurrency: 32,
        sources: (0..SOURCES).map(|index| ip(&lab.plan().links[0].host_ipv4(index))).collect(),
        server: lab.server_v4(0).ip(),
        ports: (8000..8008).collect(),
    };
    churn(&lab.client(), &lab.server(), &plan, &Stop::default()).unwrap()
}
