//! What a task tells its node of itself while it runs.

use stageline_protocol::control::TaskReport;

use super::State;
use crate::runtime::handle::NodeEvent;

impl State {
    /// Says that the plan is in force. How far the source has come does not belong there: it would be stored,
    /// which changes every view, and each of these is confirmed.
    pub(super) fn confirm(&mut self) {
        let mut report = self.task.report(None);
        if let (Some(now), Some(told)) = (&mut report.source, self.told)
            && (now.exhausted, now.full) == (told.exhausted, told.full)
        {
            now.watermark = told.watermark;
        }
        self.tell(report);
    }

    pub(super) fn report(&mut self) {
        let report = self.task.report(None);
        self.tell(report);
    }

    fn tell(&mut self, report: TaskReport) {
        self.told = report.source;
        let event = NodeEvent::Report(self.job, self.applied, Box::new(report));
        let _node_over = self.node.send(event);
    }
}
