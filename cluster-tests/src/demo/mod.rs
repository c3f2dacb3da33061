//! The demo: the main job on real traffic, in under a minute, each claim checked while you watch.

mod show;
mod steps;
mod takeover;

use std::path::PathBuf;

use crate::LabError;
use crate::lab::{DEFAULT_POLICY, Lab, LabSpec};
use crate::sys::{Netns, Stop};

use show::Show;

/// Size of the file that is fetched.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// UDP port whose sessions leave early, and after how long.
const SHORT_PORT: u16 = 7777;
const SHORT_TIMEOUT_S: u64 = 3;

/// Runs the demo. Whatever it made is gone afterwards, also when a check fails or Ctrl-C comes.
pub fn run(stop: &Stop) -> Result<(), LabError> {
    let show = Show::start();
    let name = format!("demo-{}", std::process::id());
    let spec = LabSpec { policy: Some(policy()), nodes: 2, ..LabSpec::new(name) };
    show.say("a client, a server, and two Tidegate nodes between them, each in a network namespace");
    let lab = Lab::up(spec, stop, |step| show.say(step))?;
    let result = all_steps(&lab, stop, &show);
    let plan = lab.plan().clone();
    show.say("removing the lab");
    drop(lab);
    result?;
    let left: Vec<_> = plan.netns_names().into_iter().filter(|name| Netns::new(name).exists()).collect();
    if !left.is_empty() || plan.dir.exists() {
        return Err(LabError::Check(format!("something is left behind: {left:?} {}", plan.dir.display())));
    }
    show.passed("nothing is left behind");
    show.end();
    Ok(())
}

fn all_steps(lab: &Lab, stop: &Stop, show: &Show) -> Result<(), LabError> {
    let before = steps::kernel_forwarded(lab)?;
    let file = steps::TestFile::make(show)?;
    for family in steps::Family::BOTH {
        stop.check()?;
        steps::ping(lab, family, show)?;
        steps::udp(lab, family, show)?;
    }
    takeover::takeover(lab, &file, stop, show)?;
    steps::iperf3(lab, steps::Family::V4, false, stop, show)?;
    steps::iperf3(lab, steps::Family::V6, true, stop, show)?;
    steps::denied(lab, show)?;
    steps::timeout(lab, stop, show)?;
    steps::dataplane_did_it(lab, before, show)
}

/// The lab's default policy, and an application with a short timeout.
fn policy() -> String {
    let own = format!(
        "[[application]]\nname = \"short-lived\"\nprotocol = \"udp\"\ndestination_port = {SHORT_PORT}\n\
         inactivity_timeout = {SHORT_TIMEOUT_S}\n\n\
         [[rule]]\nname = \"short-lived\"\nfrom = \"outside\"\nto = \"inside\"\nsource = \"any\"\n\
         destination = \"any\"\napplication = \"short-lived\"\naction = \"permit\"\n\n"
    );
    // Rules are tried in the order of the file: ours comes before the one that permits all the rest.
    let last_rule = DEFAULT_POLICY.rfind("[[rule]]").unwrap_or(DEFAULT_POLICY.len());
    let (head, tail) = DEFAULT_POLICY.split_at(last_rule);
    format!("{head}{own}{tail}")
}

/// Where the file lies that the server serves.
fn file_path() -> PathBuf {
    std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when the short application stands behind the rule that permits everything: it would never match.
    #[test]
    fn the_short_rule_comes_before_the_general_one() {
        let policy = policy();
        let short = policy.find("name = \"short-lived\"\nfrom").unwrap();
        assert!(short < policy.find("name = \"client-to-server\"").unwrap());
        assert!(short > policy.find("name = \"no-discard\"").unwrap());
    }
}
