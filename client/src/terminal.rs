//! Terminals: they submit the pipeline and take what comes out.

use std::time::Duration;

use serde::de::DeserializeOwned;
use stageline_protocol::ItemError;
use stageline_protocol::control::{JobStatus, Submit};
use stageline_protocol::pipeline::{Carries, Op, Site, Stage as Node};
use stageline_worker::runtime::{LocalStage, consumer};
use stageline_worker::sdk::SinkName;

use crate::client::Client;
use crate::error::{Error, JobError};
use crate::results::{Job, Results, decode, take};
use crate::stream::Stream;

impl<T: 'static> Stream<T> {
    /// Submits the pipeline and streams its results. Call it inside a tokio runtime.
    pub fn results(self, client: &Client) -> Results<T> {
        self.results_as("results", client)
    }

    /// As [`results`](Self::results), with a terminal of that name.
    pub(crate) fn results_as(mut self, name: &str, client: &Client) -> Results<T> {
        let terminal = self.push(Node::new(name, Op::Terminal, Site::Client), Carries::All);
        let (consumer, deliveries) = consumer();
        self.local.stages.insert(terminal, LocalStage::Terminal(consumer));
        Results::new(self.submit(client), deliveries)
    }

    fn submit(self, client: &Client) -> Job {
        let id = client.shared().node().draw_job();
        let wait_stages: Duration = client.wait_stages();
        let submit = Submit { job: id, pipeline: self.pipeline, wait_stages };
        let updates = client.shared().node().submit(submit, self.local);
        Job::new(id, client.shared().clone(), updates)
    }

    /// Counts the values that come out.
    ///
    /// # Errors
    /// The first error of an item, which cancels the job; or the failure of the job.
    pub async fn count(self, client: &Client) -> Result<u64, Error> {
        let mut results = self.results(client);
        let mut count = 0;
        while let Some(next) = results.next_delivery().await {
            let delivery = next?;
            if let Some(error) = delivery.error() {
                return Err(Error::Item(error.clone()));
            }
            delivery.take();
            count += 1;
        }
        Ok(count)
    }

    /// Hands every item to the sink function registered under that name, on the fleet. Answers the
    /// job's figures and the items that failed, on the way or at the sink itself.
    ///
    /// The function runs at least once for each item; pass
    /// [`Context::idempotency_key`](crate::Context::idempotency_key) on where once matters.
    ///
    /// # Errors
    /// The failure of the job.
    pub async fn for_each(
        mut self,
        sink: impl SinkName<T>,
        client: &Client,
    ) -> Result<(JobStatus, Vec<ItemError>), JobError> {
        let name = sink.into_name();
        let mut node = Node::new(name.name, Op::Sink, Site::Fleet);
        node.input = name.input;
        self.push(node, Carries::All);
        let terminal = self.push(Node::new("errors", Op::Terminal, Site::Client), Carries::Errors);
        let (consumer, deliveries) = consumer();
        self.local.stages.insert(terminal, LocalStage::Terminal(consumer));
        let mut results: Results<T> = Results::new(self.submit(client), deliveries);
        let job = results.job();
        let mut errors = Vec::new();
        while let Some(next) = results.next_delivery().await {
            let delivery = next?;
            errors.extend(delivery.error().cloned());
            delivery.take();
        }
        Ok((job.ended().await?, errors))
    }
}

impl<T: DeserializeOwned + 'static> Stream<T> {
    /// All values, in the order in which they are ready.
    ///
    /// # Errors
    /// The first error of an item, which cancels the job; or the failure of the job.
    pub async fn collect(self, client: &Client) -> Result<Vec<T>, Error> {
        let mut results = self.results(client);
        let mut values = Vec::new();
        while let Some(next) = results.next_delivery().await {
            values.push(take(next?)?);
        }
        Ok(values)
    }

    /// All values, and all errors of items.
    ///
    /// # Errors
    /// The failure of the job.
    pub async fn collect_split(
        self,
        client: &Client,
    ) -> Result<(Vec<T>, Vec<ItemError>), JobError> {
        let mut results = self.results(client);
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        while let Some(next) = results.next_delivery().await {
            match take(next?) {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error),
            }
        }
        Ok((values, errors))
    }

    /// The first `n` values to be ready. The channel is cut then: everything upstream stops at once,
    /// and what is under way is dropped. For none, nothing is run.
    ///
    /// # Errors
    /// The first error of an item before that, which cancels the job; or the failure of the job.
    pub async fn take(self, n: usize, client: &Client) -> Result<Vec<T>, Error> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let mut results = self.results(client);
        let mut values = Vec::with_capacity(n.min(1024));
        while let Some(next) = results.next_delivery().await {
            let delivery = next?;
            // What was under way when the channel was cut is not part of the answer.
            if values.len() == n {
                continue;
            }
            let is_last = values.len() + 1 == n;
            values.push(decode(&delivery)?);
            if is_last { delivery.take_last() } else { delivery.take() }
        }
        Ok(values)
    }

    /// Runs a closure in this process on every value, one after the other. The next item counts as
    /// taken when the closure has returned, so a slow one slows the pipeline down.
    ///
    /// # Errors
    /// The first error of an item, which cancels the job; or the failure of the job.
    pub async fn for_each_local<F, Fut>(self, client: &Client, mut f: F) -> Result<JobStatus, Error>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut results = self.results(client);
        let job = results.job();
        while let Some(next) = results.next_delivery().await {
            let delivery = next?;
            f(decode(&delivery)?).await;
            delivery.take();
        }
        Ok(job.ended().await?)
    }
}
