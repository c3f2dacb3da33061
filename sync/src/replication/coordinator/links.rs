//! Links to peers as they come and go, also of nodes that are no members yet as far as this one knows.

use super::{Coordinator, Member};
use tidegate_dataplane::session::owner::{Boot, NODES_MAX};
use tidegate_dataplane::time::Now;

impl Coordinator {
    /// A link is up.
    pub fn link_up(&mut self, it: Boot, link: u64, now: Now) {
        self.pass(now);
        if !self.members.contains_key(&it.node) && self.strangers.len() < NODES_MAX {
            self.strangers.entry(it.node).or_default();
        }
        let Some(member) = self.linked(it.node) else { return };
        member.link = Some((it.boot, link));
        (member.applying, member.started, member.wanted, member.is_full) = (None, None, None, false);
        if member.caught_up != Some(it.boot) {
            (member.caught_up, member.asked) = (None, None);
            member.no_room.clear();
        }
        if self.members.contains_key(&it.node) {
            self.detector.is_present(it);
        }
        self.judge(now);
    }

    /// A link is down.
    pub fn link_down(&mut self, node: u16, link: u64, now: Now) {
        self.pass(now);
        let is_its = |member: &Member| member.link.is_some_and(|(_, up)| up == link);
        self.strangers.retain(|stranger, member| *stranger != node || !is_its(member));
        if let Some(member) = self.members.get_mut(&node).filter(|member| is_its(member)) {
            (member.link, member.applying) = (None, None);
        }
        self.judge(now);
    }

    /// A member, or a node that has a link and may become one.
    pub(super) fn linked(&mut self, node: u16) -> Option<&mut Member> {
        match self.members.get_mut(&node) {
            Some(member) => Some(member),
            None => self.strangers.get_mut(&node),
        }
    }
}
