//! Virtual time: events in their order, and what each node and host makes of them.

use super::check::{Finding, Oracle};
use super::counts::Counts;
use super::flows::Flow;
use super::frame::{Ends, SimFrame};
use super::net::{Arrival, Net};
use super::node::Node;
use super::plan::Plan;
use super::route::Routing;
use crate::sim::rng::{Rng, mix};
use std::collections::BTreeMap;

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's workers look at what has come, in one of its runs.
    Pass(usize, u64),
    /// A node's coordinator looks at the clock, and sends heartbeats.
    Tick(usize, u64),
    /// A frame reaches a node.
    Frame(usize, Box<SimFrame>),
    /// A frame reaches a host.
    Host(Vec<u8>),
    /// A flow goes on, in one of its lives.
    Step(usize, u32),
    /// A host repeats itself.
    Repeat(usize, usize, u32),
    /// A heartbeat reaches a node.
    Heartbeat {
        to: usize,
        bytes: Vec<u8>,
    },
    /// Part of a stream reaches the other end.
    Carried(Arrival),
    /// Nodes look for links that are missing, and for those that are dead.
    Dial,
    /// A new flow.
    Wish,
    /// Something breaks.
    Fault,
    /// The network is whole and fair again, unless something else broke since.
    Heal(u64),
    /// A node is started, or goes on.
    Start(usize),
    Thaw(usize),
    /// The ways of the packets change.
    Reroute,
    /// A node puts a policy revision in force.
    Policy(usize, u32),
    /// What must hold at every moment is looked at.
    Look,
}

/// A machine that a node runs on, if it runs.
pub(super) struct Place {
    pub(super) number: u16,
    /// Counts its starts.
    pub(super) run: u64,
    pub(super) node: Option<Node>,
}

/// Everything.
pub(super) struct World {
    pub(super) rng: Rng,
    /// Microseconds since the beginning.
    pub(super) now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(super) places: Vec<Place>,
    pub(super) net: Net,
    pub(super) flows: Vec<Flow>,
    pub(super) by_ends: BTreeMap<Ends, usize>,
    pub(super) routing: Routing,
    pub(super) oracle: Oracle,
    pub(super) counts: Counts,
    pub(super) plan: Plan,
    /// Whether things break, whether new flows begin, and whether nothing may go wrong.
    pub(super) is_troubled: bool,
    pub(super) is_busy: bool,
    pub(super) calm_since: Option<u64>,
    /// Hosts say nothing before.
    pub(super) quiet_until: u64,
    /// Counts what befell the network.
    pub(super) troubles: u64,
    /// Newest policy revision, and which of them deny what is shifty.
    pub(super) revision: u32,
    pub(super) denying: Vec<bool>,
    /// What happened, in words, with the flow that it is about; kept when somebody wants to read it.
    pub(super) story: Option<Vec<(u64, Option<usize>, String)>>,
    /// Follows from everything that happened: two runs of a seed have the same.
    pub(super) trace: u64,
}

impl World {
    pub(super) fn new(seed: u64, told: bool) -> Self {
        let mut rng = Rng::new(mix(seed ^ 0x5e55_1045));
        let plan = Plan::new(&mut rng);
        let place = |n: usize| Place { number: n as u16 + 1, run: 0, node: None };
        let mut world = World {
            rng,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            places: (0..plan.nodes).map(place).collect(),
            net: Net::new(),
            flows: Vec::new(),
            by_ends: BTreeMap::new(),
            routing: Routing::Single(0),
            oracle: Oracle::default(),
            counts: Counts::default(),
            plan,
            is_troubled: false,
            is_busy: false,
            calm_since: None,
            quiet_until: 0,
            troubles: 0,
            revision: 1,
            denying: vec![false, false],
            story: told.then(Vec::new),
            trace: 0,
        };
        for event in [Event::Dial, Event::Look] {
            world.at(1, event);
        }
        world
    }

    pub(super) fn at(&mut self, when: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((when.max(self.now), self.sequence), event);
    }

    /// Notes what happened, for whoever reads the seed's story.
    pub(super) fn tell(&mut self, flow: Option<usize>, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push((self.now, flow, what()));
        }
    }

    /// Nodes that run, frozen or not.
    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|p| self.places[*p].node.is_some()).collect()
    }

    /// A node that runs and is not frozen.
    pub(super) fn awake(&mut self, place: usize) -> Option<&mut Node> {
        self.places.get_mut(place)?.node.as_mut().filter(|n| n.frozen.is_none())
    }

    /// Lets everything happen up to that time.
    pub(super) fn run_until(&mut self, end: u64) -> Result<(), Finding> {
        while let Some((&(when, sequence), _)) = self.queue.first_key_value() {
            if when > end {
                break;
            }
            let Some(event) = self.queue.remove(&(when, sequence)) else { break };
            self.now = when;
            self.trace = mix(self.trace ^ when.rotate_left(20) ^ sequence);
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Finding> {
        match event {
            Event::Pass(place, run) => self.pass(place, run),
            Event::Tick(place, run) => self.tick(place, run),
            Event::Frame(place, frame) => {
                self.frame(place, *frame);
                Ok(())
            }
            Event::Host(bytes) => self.host(&bytes),
            Event::Step(flow, life) => {
                self.step(flow, life);
                Ok(())
            }
            Event::Repeat(flow, host, life) => self.repeat(flow, host, life),
            Event::Heartbeat { to, bytes } => {
                self.heartbeat(to, &bytes);
                Ok(())
            }
            Event::Carried(arrival) => {
                self.carried(arrival);
                Ok(())
            }
            Event::Dial => {
                self.dial();
                Ok(())
            }
            Event::Wish => {
                self.wish();
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Heal(trouble) => {
                self.heal(trouble);
                Ok(())
            }
            Event::Start(place) => self.start(place),
            Event::Thaw(place) => {
                self.thaw(place);
                Ok(())
            }
            Event::Reroute => {
                self.reroute();
                Ok(())
            }
            Event::Policy(place, revision) => self.put_policy(place, revision),
            Event::Look => self.look(),
        }
    }
}
