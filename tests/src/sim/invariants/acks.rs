//! Acks: one for an item is sent only when all that comes of it has been delivered, and none is ever
//! taken back; and what a newer connection carries over was sent on the older one.

use std::collections::BTreeMap;

use stageline_protocol::frame::{Frame, Summary};
use stageline_protocol::ranges::Settled;
use stageline_protocol::{ConnId, Lineage, LinkId, Run};

use super::boundary::Boundary;

/// All connections of all links, past ones included: a newer one may resume from them.
#[derive(Debug, Default)]
pub(super) struct Acks {
    wires: BTreeMap<(LinkId, ConnId), OnWire>,
}

#[derive(Debug, Default)]
struct OnWire {
    /// The items by their number on this connection, and whether they are errors.
    items: Vec<(Lineage, bool)>,
    settled: Settled,
}

impl Acks {
    /// The ends have agreed on a new connection; the items that the summary holds carry over.
    pub(super) fn connected(
        &mut self,
        link: LinkId,
        conn: ConnId,
        resumed: Option<&Summary>,
    ) -> Result<(), String> {
        let mut wire = OnWire::default();
        if let Some(summary) = resumed {
            let Some(older) = self.wires.get(&(link, summary.conn)) else {
                return Err(format!("{link}: resumed from {}, which never was", summary.conn));
            };
            for number in summary.held.iter().flatten() {
                let Some(lineage) = usize::try_from(number).ok().and_then(|n| older.items.get(n))
                else {
                    return Err(format!("{link}: holds number {number}, which was never sent"));
                };
                wire.items.push(lineage.clone());
            }
        }
        self.wires.insert((link, conn), wire);
        Ok(())
    }

    pub(super) fn sent(
        &mut self,
        link: LinkId,
        conn: ConnId,
        frame: &Frame,
        boundary: &Boundary,
    ) -> Result<(), String> {
        let Some(wire) = self.wires.get_mut(&(link, conn)) else { return Ok(()) };
        match frame {
            Frame::Items(items) => {
                let sent = items.batch.iter().flat_map(Run::items);
                wire.items.extend(sent.map(|item| (item.lineage.clone(), item.is_error())));
                Ok(())
            }
            Frame::Ack(ack) => {
                let broken = |what: String| Err(format!("{link} on {conn}: {what}"));
                if !wire.settled.since(&ack.settled).is_empty() {
                    return broken("an ack was taken back".to_owned());
                }
                for number in ack.settled.since(&wire.settled).into_iter().flatten() {
                    let item = usize::try_from(number).ok().and_then(|n| wire.items.get(n));
                    let Some(item) = item else {
                        return broken(format!("acked {number}, which was never sent"));
                    };
                    let (item, is_error) = item;
                    if let Err(missing) = boundary.check_safe(link.to.stage, item, *is_error) {
                        return broken(format!("acked {item}, but {missing} is not delivered"));
                    }
                }
                wire.settled = ack.settled.clone();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A summary says that items are safe: they must be.
    pub(super) fn summarised(
        &self,
        link: LinkId,
        summary: &Summary,
        boundary: &Boundary,
    ) -> Result<(), String> {
        let Some(wire) = self.wires.get(&(link, summary.conn)) else { return Ok(()) };
        for (number, (item, is_error)) in (0..).zip(&wire.items) {
            if summary.acked.contains(number) {
                boundary.check_safe(link.to.stage, item, *is_error).map_err(|missing| {
                    format!("{link}: a summary has {item} as acked, {missing} is not delivered")
                })?;
            }
        }
        Ok(())
    }
}
