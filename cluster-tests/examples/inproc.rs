//! Runs the in-process benches alone: `cargo run --release --example inproc -- [--quick]`.

use tidegate_lab::bench::inproc;
use tidegate_lab::bench::report::{REPORT_PATH, Report};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let report = Report { rows: inproc::run(quick) };
    print!("{}", report.markdown());
    if !quick {
        Report::update(std::path::Path::new(REPORT_PATH), report.rows)?;
    }
    Ok(())
}
