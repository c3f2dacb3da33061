//! Compiles the XDP program with clang. Fails with the name of the package to install.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let source = "bpf/tidegate.bpf.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("tidegate.bpf.o");

    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-mcpu=v3"]);
    // The kernel's uapi headers want <asm/types.h>, which Debian keeps by architecture.
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        command.arg(format!("-I{multiarch}"));
    }
    let output = command.args(["-c", source, "-o"]).arg(&out).output();
    let output = match output {
        Ok(output) => output,
        Err(e) => fail(&format!(
            "cannot run `{clang}` ({e}), which compiles the XDP program.\n\
             Install it: apt-get install clang libbpf-dev linux-libc-dev (or set CLANG to its path)"
        )),
    };
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let hint = if text.contains("file not found") {
            "\nA header is missing: apt-get install libbpf-dev linux-libc-dev"
        } else {
            ""
        };
        fail(&format!("{clang} could not compile {source}:\n{text}{hint}"));
    }
}

fn fail(message: &str) -> ! {
    eprintln!("tidegate-xdp: {message}");
    std::process::exit(1)
}
