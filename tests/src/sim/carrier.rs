//! What carries links: dials, frames and hang-ups, from one task to another over the network. All that
//! goes over a wire is shown to the [`super::invariants`].

use stageline_protocol::frame::{Close, CloseReason, Open, Role};
use stageline_protocol::task::LinkKey;
use stageline_protocol::{ConnId, Frame, TaskId, Time};

use super::cluster::{Cluster, Event};
use super::log::Short;
use super::network::{ACCEPTOR, Conn, ConnEnd, DIALLER, Pid};
use super::schedule::one_of;

impl Cluster {
    pub(super) fn dial(&mut self, pid: Pid, id: TaskId, key: LinkKey, open: Box<Open>) {
        self.figures.dials += 1;
        let view = self.nodes[pid].view.as_ref();
        let peer = view.and_then(|view| view.peers.iter().find(|peer| peer.id == key.peer));
        let process = peer.map(|peer| peer.process);
        let to = self.nodes.iter().position(|node| Some(node.incarnation) == process);
        let local = to == Some(pid);
        let (link, conn) = (open.link, open.conn);
        self.log.note(self.now, format_args!("{link} dial {conn} resume {:?}", open.resume));
        let acceptor_key = LinkKey { channel: key.channel, peer: id };
        let ends =
            [ConnEnd::new(pid, id, key), ConnEnd::new(to.unwrap_or(pid), key.peer, acceptor_key)];
        let open = Some(open);
        let index =
            self.network.add(Conn { id: conn, link, local, open, established: false, ends });
        let cut = to.is_some_and(|to| self.network.cut_until(pid, to, self.now).is_some());
        if to.is_none() || cut || (!local && self.chance(self.schedule.pace.failing_dials)) {
            self.after(0, if cut { 500_000 } else { 50_000 }, Event::Down(index, DIALLER));
            self.network.close(index, ACCEPTOR);
            return;
        }
        let at = self.frame_delay(local);
        let at = self.network.get(index).ends[ACCEPTOR].arrival(at);
        self.at(at, Event::Dialled(index));
    }

    fn frame_delay(&mut self, local: bool) -> Time {
        let most = if local { 50 } else { self.schedule.pace.frame };
        self.later(most / 20, most)
    }

    pub(super) fn dialled(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        let conn = self.network.get(index);
        let (link, end) = (conn.link, &conn.ends[ACCEPTOR]);
        if !end.open || end.loses(now) {
            return Ok(());
        }
        let (pid, id, id_conn) = (end.pid, end.task, conn.id);
        let Some(open) = conn.open.take() else { return Ok(()) };
        if !self.nodes[pid].alive {
            self.network.close(index, ACCEPTOR);
            self.after(0, 100_000, Event::Down(index, DIALLER));
            return Ok(());
        }
        for summary in &open.summaries {
            self.links.summarised(link, summary, &self.boundary)?;
        }
        let answer = match self.nodes[pid].tasks.get_mut(&id) {
            Some(running) => running.task.on_open(now, &open),
            None => Err(Close {
                reason: CloseReason::NoSuchTask,
                message: format!("task {id} is not here"),
            }),
        };
        match answer {
            Ok((key, accept)) => {
                let summary = match open.role {
                    Role::Sender => accept.summary.as_ref(),
                    Role::Receiver => open.summaries.iter().find(|s| Some(s.conn) == accept.resume),
                };
                if let (Role::Sender, Some(summary)) = (open.role, summary) {
                    self.links.summarised(link, summary, &self.boundary)?;
                }
                let view = self.nodes[pid].view.as_ref();
                self.links.accepted(link, id_conn, key.peer, view)?;
                self.figures.carried +=
                    summary.map_or(0, |s| s.held.iter().map(|r| r.end - r.start).sum());
                self.links.connected(link, id_conn, summary)?;
                self.network.get(index).established = true;
                self.send(pid, id, key, id_conn, Frame::Accept(accept))?;
            }
            Err(close) => {
                self.log.note(now, format_args!("{link} refused: {:?}", close.reason));
                let end = &self.network.get(index).ends[ACCEPTOR];
                let key = end.key;
                self.send(pid, id, key, id_conn, Frame::Close(close))?;
                self.hang_up(index, ACCEPTOR);
            }
        }
        self.drive(pid, id)
    }

    /// Puts a frame on its wire.
    pub(super) fn send(
        &mut self,
        pid: Pid,
        id: TaskId,
        key: LinkKey,
        conn: ConnId,
        frame: Frame,
    ) -> Result<(), String> {
        let Some((index, side)) = self.network.find(pid, id, key, conn) else { return Ok(()) };
        let link = self.network.get(index).link;
        self.log.note(self.now, format_args!("{link} {conn} {id} sends {}", Short(&frame)));
        self.links.sent(link, conn, &frame, &self.boundary)?;
        if let Frame::Return(returned) = &frame {
            let numbers: u64 = returned.numbers.iter().map(|range| range.end - range.start).sum();
            self.figures.returned += numbers;
        }
        let local = self.network.get(index).local;
        let at = self.frame_delay(local);
        let end = &mut self.network.get(index).ends[1 - side];
        let at = end.arrival(at);
        if end.open && end.lost_after.is_none_or(|lost| at <= lost) {
            self.at(at, Event::Frame(index, 1 - side, frame));
        }
        if self.chance(self.schedule.pace.full_wires)
            && let Some(running) = self.nodes[pid].tasks.get_mut(&id)
        {
            running.task.block(key);
            self.after(100, 30_000, Event::Unblock(pid, id, key));
        }
        Ok(())
    }

    pub(super) fn unblock(&mut self, pid: Pid, id: TaskId, key: LinkKey) -> Result<(), String> {
        if let Some(running) = self.nodes[pid].tasks.get_mut(&id) {
            running.task.unblock(key);
        }
        self.drive(pid, id)
    }

    pub(super) fn frame_arrived(
        &mut self,
        index: usize,
        side: usize,
        frame: Frame,
    ) -> Result<(), String> {
        let now = self.now;
        let conn = self.network.get(index);
        let (link, id_conn, end) = (conn.link, conn.id, &conn.ends[side]);
        if !end.hears(now) {
            return Ok(());
        }
        let (pid, id, key) = (end.pid, end.task, end.key);
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        self.links.arrived(link, id_conn, &frame);
        if let Err(violation) = running.task.on_frame(now, key, id_conn, frame) {
            return Err(format!("{link} on {id_conn}: {id} says that its peer {violation}"));
        }
        self.drive(pid, id)
    }

    /// An end hangs up: the other one hears of it behind what was sent.
    pub(super) fn hang_up(&mut self, index: usize, side: usize) {
        let local = self.network.get(index).local;
        let at = self.frame_delay(local);
        let conn = self.network.get(index);
        let broken = conn.ends[side].lost_after.is_some();
        let at = conn.ends[1 - side].arrival(at);
        let tell = conn.ends[side].open && conn.ends[1 - side].open && !broken;
        self.linger(index, side);
        self.network.close(index, side);
        if tell {
            self.at(at, Event::Down(index, 1 - side));
        }
    }

    /// What its reader had already read may come to the task after the end was closed.
    fn linger(&mut self, index: usize, side: usize) {
        let longest = one_of(&mut self.rng, &[0, 3_000, 500_000]);
        let until = self.later(0, longest);
        self.network.get(index).ends[side].lingers_until = until;
    }

    pub(super) fn conn_down(&mut self, index: usize, side: usize) -> Result<(), String> {
        let conn = self.network.get(index);
        if !conn.ends[side].open {
            return Ok(());
        }
        let (link, id_conn, end) = (conn.link, conn.id, &conn.ends[side]);
        let (pid, id, key) = (end.pid, end.task, end.key);
        self.linger(index, side);
        self.network.close(index, side);
        let Some(running) = self.nodes[pid].tasks.get_mut(&id) else { return Ok(()) };
        self.log.note(self.now, format_args!("{link} {id_conn} down at {id}"));
        running.task.on_down(self.now, key, id_conn);
        self.drive(pid, id)
    }
}
