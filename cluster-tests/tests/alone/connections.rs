//! Many real TCP connections, opened and closed through the node.

use tidegate_lab::sys::Stop;
use tidegate_lab::traffic::{Churn, ChurnReport, churn};

use crate::common::{TestLab, ip, kernel_lab, lab};

/// Client addresses: with eight server ports, 64 tuples share each ephemeral port.
const SOURCES: u32 = 8;

const CONNECTIONS: u64 = 200_000;

/// Red when one segment of a handshake or close is dropped for good (an error), or some are dropped now and then
/// (retransmissions beyond those of the same run through kernel forwarding).
#[test]
fn connections_open_and_close_without_one_error() {
    let report = {
        let lab = lab("conns", |spec| spec.client_addresses = SOURCES - 1);
        let report = run(&lab);
        eprintln!("tidegate: {report:?}\n{}", lab.tidegate(&["drops", "--nonzero"]).unwrap().stdout);
        report
    };
    let kernel = run(&kernel_lab("connsk", |spec| spec.client_addresses = SOURCES - 1));
    eprintln!("kernel:   {kernel:?}");
    assert_eq!((kernel.completed, kernel.failed), (CONNECTIONS, 0), "{:?}", kernel.errors);
    assert_eq!((report.completed, report.failed), (CONNECTIONS, 0), "{:?}", report.errors);
    // A connection is ten segments or more; one in 100,000 of them is below what the kernel's own runs differ by.
    let allowance = CONNECTIONS / 10_000;
    assert!(
        report.retransmissions <= kernel.retransmissions + allowance,
        "{} retransmissions; through the kernel {}",
        report.retransmissions,
        kernel.retransmissions
    );
}

fn run(lab: &TestLab) -> ChurnReport {
    let plan = Churn {
        connections: CONNECTIONS,
        concurrency: 32,
        sources: (0..SOURCES).map(|index| ip(&lab.plan().links[0].host_ipv4(index))).collect(),
        server: lab.server_v4(0).ip(),
        ports: (8000..8008).collect(),
    };
    churn(&lab.client(), &lab.server(), &plan, &Stop::default()).unwrap()
}
