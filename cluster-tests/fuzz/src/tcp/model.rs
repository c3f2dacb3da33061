//! A slow, plain model of one TCP session of a node, written from the rows (J4 to J7) and from
//! `spec/replication.md`, in other terms than the tracker and without a line of its code. It knows one
//! pair of ends, and judges each segment on a copy of everything.

use std::collections::BTreeMap;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A segment between the two ends.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub from_client: bool,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub payload: u32,
    pub window: u16,
    pub scale: Option<u8>,
}

/// The switches of `[tcp]`, and what the policy permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Switches {
    pub syn_check: bool,
    pub strict_syn_check: bool,
    pub sequence_check: bool,
    pub rst_sequence_check: bool,
    pub rst_invalidate: bool,
    pub fin_invalidate: bool,
    pub half_close_time_wait: bool,
    /// `None` is "ageout".
    pub time_wait_s: Option<u32>,
    /// The server may open connections to the client.
    pub both_ways: bool,
}

pub const INITIAL_MS: u64 = 20_000;
pub const SERVICE_MS: u64 = 100_000;
const LAST_ACK_MS: u64 = 2_000;
const ALONE_MS: u64 = 5_000;

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Forwarded,
    Dropped(&'static str),
}

/// What an operator sees of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub state: &'static str,
    pub timeout_ms: u64,
    pub remaining_ms: u64,
}

/// What is known of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    pub syn_number: Option<u32>,
    scale: Option<u8>,
    picked_up: bool,
    syn_acked: bool,
    fin: bool,
    fin_acked: bool,
    rst: bool,
    /// The number behind the last byte sent.
    pub sent: u32,
    /// The highest acknowledgement of the other side's numbers.
    pub acked: Option<u32>,
    /// The number behind the last byte that the other side may send.
    pub granted: u32,
    largest_window: u64,
    /// When this node last saw it.
    seen: Option<u64>,
}

impl Side {
    fn silent(&self) -> bool {
        self.syn_number.is_none() && !self.picked_up
    }

    pub fn largest_window(&self) -> u64 {
        self.largest_window
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Session {
    client_began: bool,
    /// The one that began, and the other.
    pub sides: [Side; 2],
    last_packet: u64,
}

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Fits,
    Learned,
    Challenge,
    Outside,
    ResetOutside,
    Anew,
}

/// `a - b` on the circle of numbers, from -2^31 to 2^31 - 1.
pub fn distance(a: u32, b: u32) -> i64 {
    let round = 1i64 << 32;
    let d = (i64::from(a) - i64::from(b)).rem_euclid(round);
    if d < round / 2 { d } else { d - round }
}

fn farther(a: u32, b: u32) -> u32 {
    if distance(b, a) >= 0 { b } else { a }
}

/// How far behind the newest an old number may lie.
pub fn reach(largest_window: u64) -> i64 {
    let window = largest_window.max(66_000) as i64;
    (2 * window).min(1 << 30)
}

fn end_of(s: &Segment) -> u32 {
    let takes = u64::from(s.payload) + u64::from(s.flags & SYN != 0) + u64::from(s.flags & FIN != 0);
    (u64::from(s.seq) + takes) as u32
}

impl Session {
    pub fn client_began(&self) -> bool {
        self.client_began
    }

    /// The phase by everything but resets.
    fn phase(&self) -> &'static str {
        let [a, b] = &self.sides;
        let open = |s: &Side| s.syn_acked || s.picked_up;
        match () {
            () if a.fin && b.fin && a.fin_acked && b.fin_acked => "closed",
            () if a.fin && b.fin => "time_wait",
            () if open(a) && open(b) && (a.fin || b.fin) => "half_closed",
            () if open(a) && open(b) => "established",
            () if a.syn_number.is_some() && b.syn_number.is_some() => "syn_received",
            () => "syn_sent",
        }
    }

    fn state(&self) -> &'static str {
        if self.sides.iter().any(|s| s.rst) { "reset" } else { self.phase() }
    }

    fn shaking_hands(&self) -> bool {
        matches!(self.phase(), "syn_sent" | "syn_received") && !self.sides.iter().any(|s| s.picked_up)
    }

    /// Whether what side `w` may send cannot be told from what this node saw.
    fn unsure(&self, w: usize) -> bool {
        match (self.sides[w].seen, self.sides[1 - w].seen) {
            (Some(own), Some(other)) => own > other + ALONE_MS,
            _ => true,
        }
    }

    fn acks_syn_of(other: &Side, s: &Segment) -> bool {
        let Some(number) = other.syn_number else { return false };
        s.flags & ACK != 0 && distance(s.ack, number) >= 1 && distance(other.sent, s.ack) >= 0
    }

    /// Notes acknowledgement and window of side `w`.
    fn grants(&mut self, w: usize, s: &Segment, began_here: bool) {
        let (own, other) = (self.sides[w], self.sides[1 - w]);
        let shift = match own.syn_number {
            None => 14,
            Some(_) if other.syn_number.is_some() && other.scale.is_none() => 0,
            Some(_) => own.scale.unwrap_or(0),
        };
        let window = u64::from(s.window) << shift;
        let edge = (u64::from(s.ack) + window.max(1)) as u32;
        let comparable =
            !began_here && (own.picked_up || (own.syn_number.is_some() && other.syn_number.is_some()));
        let side = &mut self.sides[w];
        side.granted = if comparable { farther(side.granted, edge) } else { edge };
        side.largest_window = side.largest_window.max(window).max(1);
        if Session::acks_syn_of(&other, s) {
            self.sides[1 - w].syn_acked = true;
        }
        if began_here || own.picked_up || self.sides[1 - w].syn_acked {
            let side = &mut self.sides[w];
            side.acked = Some(side.acked.map_or(s.ack, |old| farther(old, s.ack)));
        }
    }

    fn judge(&mut self, w: usize, s: &Segment, now: u64) -> Place {
        let unsure = self.unsure(w);
        let place = if s.flags & RST != 0 {
            self.judge_rst(w, s, unsure)
        } else if s.flags & SYN != 0 {
            self.judge_syn(w, s, now)
        } else {
            self.judge_plain(w, s, unsure, now)
        };
        if place == Place::Fits && !self.sides[w].silent() {
            if !unsure && self.sides[w].seen.is_some_and(|seen| now - seen > ALONE_MS) {
                self.sides[1 - w].seen = Some(now);
            }
            self.sides[w].seen = Some(now);
        }
        place
    }

    fn judge_rst(&mut self, w: usize, s: &Segment, unsure: bool) -> Place {
        let (own, other) = (self.sides[w], self.sides[1 - w]);
        let exact = if own.silent() && other.syn_number.is_some() {
            if !Session::acks_syn_of(&other, s) {
                return Place::ResetOutside;
            }
            true
        } else if own.silent() {
            other.acked == Some(s.seq)
        } else {
            own.sent == s.seq || (!unsure && other.acked == Some(s.seq))
        };
        if exact {
            self.sides[w].rst = true;
            return Place::Fits;
        }
        let behind = distance(own.sent, s.seq);
        let inside = distance(other.granted, s.seq) >= 0 && behind <= reach(other.largest_window);
        if unsure || inside { Place::Challenge } else { Place::ResetOutside }
    }

    fn judge_syn(&mut self, w: usize, s: &Segment, now: u64) -> Place {
        let (own, other) = (self.sides[w], self.sides[1 - w]);
        let answers = s.flags & ACK != 0;
        let repeated = own.syn_number == Some(s.seq);
        if !answers {
            let over = matches!(self.state(), "time_wait" | "closed" | "reset");
            let unanswered = self.state() == "syn_sent" && w == 0 && !own.silent() && !repeated;
            let only_strays = own.silent() && other.picked_up && other.syn_number.is_none();
            if over || unanswered || only_strays {
                return Place::Anew;
            }
        }
        if !self.shaking_hands() {
            return Place::Challenge;
        }
        if answers && own.silent() && other.silent() {
            return self.pick_up(w, s, now);
        }
        if answers && !Session::acks_syn_of(&other, s) {
            return if own.silent() { Place::Outside } else { Place::Challenge };
        }
        if repeated {
            let side = &mut self.sides[w];
            side.sent = farther(side.sent, end_of(s));
            if answers {
                let old = side.acked.filter(|_| other.syn_acked);
                side.acked = Some(old.map_or(s.ack, |old| farther(old, s.ack)));
                self.sides[1 - w].syn_acked = true;
            }
            return Place::Fits;
        }
        if !own.silent() && (!answers || own.syn_acked) {
            return Place::Challenge;
        }
        let window = u64::from(s.window).max(1);
        let side = &mut self.sides[w];
        side.syn_number = Some(s.seq);
        side.scale = s.scale.map(|n| n.min(14));
        side.sent = end_of(s);
        side.largest_window = window;
        if answers {
            side.acked = Some(s.ack);
            side.granted = (u64::from(s.ack) + window) as u32;
            self.sides[1 - w].syn_acked = true;
        } else if let Some(number) = other.syn_number {
            side.granted = (u64::from(number) + 1 + window) as u32;
        }
        if other.syn_number.is_some() && !own.syn_acked {
            self.sides[1 - w].granted = (u64::from(s.seq) + 1 + other.largest_window) as u32;
        }
        Place::Fits
    }

    fn pick_up(&mut self, w: usize, s: &Segment, now: u64) -> Place {
        let other = self.sides[1 - w];
        let expected = !other.silent() && other.acked == Some(s.seq);
        self.grants(w, s, true);
        let side = &mut self.sides[w];
        side.sent = end_of(s);
        side.picked_up = true;
        side.fin |= expected && s.flags & FIN != 0;
        side.seen = Some(now);
        Place::Learned
    }

    fn judge_plain(&mut self, w: usize, s: &Segment, unsure: bool, now: u64) -> Place {
        let (own, other) = (self.sides[w], self.sides[1 - w]);
        if own.silent() {
            if other.syn_number.is_some() {
                return Place::Challenge;
            }
            return self.pick_up(w, s, now);
        }
        let end = end_of(s);
        let back = reach(other.largest_window);
        let near = other.silent() || distance(s.seq, own.sent).abs() <= back;
        if unsure {
            if near {
                let side = &mut self.sides[w];
                side.fin |= s.flags & FIN != 0 && s.seq == side.sent;
                side.sent = farther(side.sent, end);
                side.seen = Some(now);
                self.grants(w, s, false);
            }
            return Place::Learned;
        }
        let acknowledgeable = own.acked.map_or(other.sent, |old| farther(other.sent, old));
        let inside = distance(other.granted, s.seq) >= 0
            && distance(own.sent, end) <= back
            && distance(acknowledgeable, s.ack) >= 0
            && distance(other.sent, s.ack) <= reach(own.largest_window);
        if !inside {
            if near {
                self.sides[w].seen = Some(now);
            }
            return Place::Outside;
        }
        let side = &mut self.sides[w];
        side.fin |= s.flags & FIN != 0 && distance(end, side.sent) >= 0;
        side.sent = farther(side.sent, end);
        self.grants(w, s, false);
        let other = &mut self.sides[1 - w];
        other.fin_acked |= other.fin && distance(s.ack, other.sent) >= 0;
        Place::Fits
    }
}

/// The node, as far as these two ends see it.
#[derive(Clone, Debug)]
pub struct Model {
    pub switches: Switches,
    pub session: Option<Session>,
    pub ended: BTreeMap<&'static str, u64>,
    pub ignored: u64,
    pub learned: u64,
}

impl Model {
    pub fn new(switches: Switches) -> Model {
        Model { switches, session: None, ended: BTreeMap::new(), ignored: 0, learned: 0 }
    }

    fn timeout_ms(&self, s: &Session) -> u64 {
        let closing = self.switches.time_wait_s.map_or(SERVICE_MS, |t| u64::from(t) * 1000);
        match s.phase() {
            "syn_sent" | "syn_received" => INITIAL_MS,
            "half_closed" if self.switches.half_close_time_wait => closing,
            "time_wait" => closing,
            "closed" if self.switches.time_wait_s.is_some() => LAST_ACK_MS,
            _ => SERVICE_MS,
        }
    }

    /// The session as it is listed at that time, if it is alive.
    pub fn shown(&self, now: u64) -> Option<Shown> {
        let s = self.session.as_ref()?;
        let timeout_ms = self.timeout_ms(s);
        let remaining_ms = (s.last_packet + timeout_ms).checked_sub(now)?;
        Some(Shown { state: s.state(), timeout_ms, remaining_ms })
    }

    fn end(&mut self, why: &'static str) {
        self.session = None;
        *self.ended.entry(why).or_default() += 1;
    }

    /// Judges a segment that arrives at that time.
    pub fn arrive(&mut self, s: &Segment, now: u64) -> Fate {
        if self.session.is_some() && self.shown(now).is_none() {
            self.end("aged");
        }
        let Some(before) = self.session else { return self.first(s, now) };
        let w = usize::from(before.client_began != s.from_client);
        let mut after = before;
        let place = after.judge(w, s, now);
        let early = s.payload > 0 && before.shaking_hands() && after.shaking_hands();
        if self.switches.strict_syn_check && early && place != Place::Anew {
            return Fate::Dropped("tcp_early_data");
        }
        // What a check drops leaves one trace: its wing was there.
        let moved = before.phase() != after.phase();
        let sent_fin = after.sides[w].fin;
        let counts = match place {
            Place::Anew => return self.first(s, now),
            Place::Outside if self.switches.sequence_check => {
                self.session = Some(after);
                return Fate::Dropped("tcp_out_of_window");
            }
            Place::ResetOutside if self.switches.rst_sequence_check => {
                return Fate::Dropped("tcp_rst_out_of_window");
            }
            Place::Fits => true,
            Place::Learned => {
                self.learned += 1;
                true
            }
            Place::Outside => {
                self.ignored += 1;
                true
            }
            Place::Challenge | Place::ResetOutside => {
                self.ignored += 1;
                false
            }
        };
        let lengthens = match after.phase() {
            "time_wait" | "closed" => false,
            "half_closed" if self.switches.half_close_time_wait => !sent_fin,
            _ => true,
        };
        if moved || (counts && lengthens) {
            after.last_packet = now;
        }
        self.session = Some(after);
        match after.state() {
            "reset" if self.switches.rst_invalidate => self.end("reset"),
            "closed" if self.switches.fin_invalidate => self.end("closed"),
            _ => {}
        }
        Fate::Forwarded
    }

    /// A segment of no session, or one that begins another in its place.
    fn first(&mut self, s: &Segment, now: u64) -> Fate {
        let pure_syn = s.flags & (SYN | ACK | RST) == SYN;
        let stray_may_begin = !self.switches.syn_check && s.flags & ACK != 0 && s.flags & RST == 0;
        if !pure_syn && !stray_may_begin {
            return Fate::Dropped("tcp_no_session");
        }
        if self.switches.strict_syn_check && s.payload > 0 {
            return Fate::Dropped("tcp_early_data");
        }
        if !s.from_client && !self.switches.both_ways {
            return Fate::Dropped("policy_default");
        }
        if self.session.is_some() {
            self.end("superseded");
        }
        let sides = [Side::default(); 2];
        let mut session = Session { client_began: s.from_client, sides, last_packet: now };
        if session.judge(0, s, now) == Place::Learned {
            self.learned += 1;
        }
        self.session = Some(session);
        Fate::Forwarded
    }
}
