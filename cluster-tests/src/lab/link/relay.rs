//! The relay's hands: sockets on the segment's ports, a clock, and a socket for orders.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::switch::Switch;
use super::{Order, Report};
use crate::LabError;
use crate::sys::Stop;
use crate::traffic::Wire;

/// Longest frame: segments are not joined on these ports.
const FRAME_MAX: usize = 9_216;
/// Frames of a port that are taken before the others have their turn.
const BURST: usize = 64;
/// How often it looks whether it is to end.
const TURN: Duration = Duration::from_millis(100);
/// How long somebody who gives an order may take.
const ORDER_PATIENCE: Duration = Duration::from_millis(500);

/// Moves frames between ports until it is told to end. The ports are open, and nobody else moves frames.
pub(super) fn run(
    ports: &[Wire],
    mut switch: Switch,
    orders: &UnixListener,
    stop: &Stop,
) -> Result<(), LabError> {
    let start = Instant::now();
    let mut buffer = vec![0; FRAME_MAX];
    while !stop.is_set() {
        let now_us = micros(start);
        let wait = switch.next_due_us().map_or(TURN, |due| Duration::from_micros(due.saturating_sub(now_us)));
        let mut ready: Vec<_> =
            ports.iter().map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)).collect();
        ready.push(PollFd::new(orders.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut ready, Some(TimeSpec::from_duration(wait.min(TURN))), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => (),
            Err(errno) => return Err(LabError::system("wait for frames", errno)),
        }
        let is_ready: Vec<_> = ready.iter().map(|one| one.any().unwrap_or(false)).collect();
        for (from, port) in ports.iter().enumerate().filter(|(from, _)| is_ready[*from]) {
            for _ in 0..BURST {
                // A port that is down says so once, and has nothing.
                let Ok(Some(length)) = port.take(&mut buffer) else { break };
                switch.take(from, &buffer[..length], micros(start));
            }
        }
        switch.deliver(micros(start), |to, frame| ports[to].send(frame).is_ok());
        if is_ready[ports.len()]
            && let Ok((stream, _)) = orders.accept()
        {
            // Who gives an order and goes away learns nothing.
            let _ = obey(stream, &mut switch);
        }
    }
    Ok(())
}

fn obey(mut stream: UnixStream, switch: &mut Switch) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ORDER_PATIENCE))?;
    stream.set_write_timeout(Some(ORDER_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    switch.obey(&order);
    let mut answer = serde_json::to_string(&switch.report())?;
    answer.push('\n');
    stream.write_all(answer.as_bytes())
}

/// Gives an order to a relay.
pub(super) fn tell(mut stream: UnixStream, order: &Order, patience: Duration) -> std::io::Result<Report> {
    stream.set_read_timeout(Some(patience))?;
    let mut text = serde_json::to_string(order)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn micros(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}
