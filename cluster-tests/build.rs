//! Compiles the benches' generator and sink with clang. Fails with the name of the package to install.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let source = "bpf/bench.bpf.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("bench.bpf.o");
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-mcpu=v3"]);
    // The kernel's uapi headers want <asm/types.h>, which Debian keeps by architecture.
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        command.arg(format!("-I{multiarch}"));
    }
    match command.args(["-c", source, "-o"]).arg(&out).output() {
        Ok(output) if output.status.success() => (),
        Ok(output) => fail(&format!(
            "{clang} could not compile {source} (is libbpf-dev installed? make setup):\n{}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => fail(&format!("cannot run `{clang}` ({error}); install it with: make setup")),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("tidegate-cluster-tests: {message}");
    std::process::exit(1)
}
