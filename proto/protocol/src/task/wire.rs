//! The connection under a link: who dials, whether it is up, and since when it is not.

use std::time::Duration;

use crate::ids::{ConnId, TaskId};
use crate::time::Time;

use super::Dials;

const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LAST_BACKOFF: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Hash)]
pub(super) struct Wire {
    pub(super) dials: Dials,
    state: State,
    /// The newest connection seen, up or not: an older one is stale.
    newest: ConnId,
    /// How often this end has dialled.
    dialled: u64,
    down_since: Option<Time>,
    attempts: u32,
    /// The other end has been given up; what it held has been sent elsewhere.
    pub(super) lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Down { retry_at: Option<Time> },
    Dialling(ConnId),
    Up(ConnId),
}

impl Wire {
    pub(super) fn new(now: Time, dials: Dials) -> Self {
        Self {
            dials,
            state: State::Down { retry_at: (dials == Dials::We).then_some(now) },
            newest: ConnId::default(),
            dialled: 0,
            down_since: Some(now),
            attempts: 0,
            lost: false,
        }
    }

    /// The connection that frames belong to: up, or being dialled.
    pub(super) const fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Down { .. } => None,
            State::Dialling(conn) | State::Up(conn) => Some(conn),
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(super) const fn is_dialling(&self) -> bool {
        matches!(self.state, State::Dialling(_))
    }

    /// The next dial, if it is due.
    pub(super) fn dial(&mut self, now: Time, own: TaskId) -> Option<ConnId> {
        match self.state {
            State::Down { retry_at: Some(at) } if at <= now => {
                // Not counted from `newest`: its number may be the other end's, which can be any.
                self.dialled += 1;
                let conn = ConnId { dialler: own.epoch, number: self.dialled };
                self.newest = self.newest.max(conn);
                self.state = State::Dialling(conn);
                Some(conn)
            }
            _ => None,
        }
    }

    /// The other end dialled. False if that connection is older than one seen.
    pub(super) fn accept(&mut self, conn: ConnId) -> bool {
        if conn <= self.newest {
            return false;
        }
        self.newest = conn;
        self.up(conn);
        true
    }

    pub(super) const fn up(&mut self, conn: ConnId) {
        self.state = State::Up(conn);
        self.down_since = None;
        self.attempts = 0;
        self.lost = false;
    }

    pub(super) fn down(&mut self, now: Time) {
        let retry_at = (self.dials == Dials::We).then(|| {
            let backoff = FIRST_BACKOFF * (1 << self.attempts.min(6));
            now + if self.attempts == 0 { Duration::ZERO } else { backoff.min(LAST_BACKOFF) }
        });
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Down { retry_at };
        self.down_since.get_or_insert(now);
    }

    /// The channel is cut: there is nothing to dial for, and nothing to lose.
    pub(super) const fn close(&mut self) {
        self.state = State::Down { retry_at: None };
        self.lost = true;
    }

    /// When the next dial is due.
    pub(super) const fn retry_at(&self) -> Option<Time> {
        match self.state {
            State::Down { retry_at } => retry_at,
            _ => None,
        }
    }

    /// Since when it is down, if it is.
    pub(super) const fn down_since(&self) -> Option<Time> {
        self.down_since
    }

    /// When the other end counts as lost.
    pub(super) fn lost_at(&self, lease: Duration) -> Option<Time> {
        if self.lost { None } else { self.down_since.map(|since| since + lease) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, StageId};

    #[test]
    fn a_peer_that_dials_under_the_largest_number_does_not_keep_this_end_from_dialling() {
        let own = TaskId { stage: StageId(1), epoch: Epoch(5) };
        let mut wire = Wire::new(Time::ZERO, Dials::We);
        assert!(wire.accept(ConnId { dialler: Epoch(4), number: u64::MAX }));
        wire.down(Time::ZERO);
        let ours = ConnId { dialler: Epoch(5), number: 1 };
        assert_eq!(wire.dial(Time::ZERO, own), Some(ours));
        assert!(!wire.accept(ConnId { dialler: Epoch(4), number: u64::MAX }), "it is superseded");
    }
}
