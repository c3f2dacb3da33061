//! `tidegate`: one binary, the daemon and its command line.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
