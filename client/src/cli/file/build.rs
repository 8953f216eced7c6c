//! From a pipeline file to the pipeline that is submitted.

use std::collections::BTreeSet;

use stageline_protocol::graph::nearest;
use stageline_protocol::ids::StageId;
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};

use super::{FileError, PipelineFile, SinkSpec, SourceSpec, StageSpec, decode};

impl PipelineFile {
    /// The pipeline: the source and the terminal in the client, the stages on the fleet, in one
    /// chain; stage 0 is the source, and the last is the terminal. `op_of` tells the operator of a
    /// registered function for which the file names none; unknown: `map`.
    ///
    /// A stage that the file does not name is called as its function, with a number from the second
    /// on: `jq`, `jq-2`.
    #[must_use]
    pub fn pipeline(&self, op_of: &dyn Fn(&str) -> Option<Op>) -> Pipeline {
        let mut names = Names(self.stages.iter().filter_map(|stage| stage.name.clone()).collect());
        let source = names.unique(self.source.name());
        let mut stages = vec![Stage::new(source, Op::Source, Site::Client)];
        let mut buffers = Vec::new();
        for spec in &self.stages {
            let name = spec.name.clone().unwrap_or_else(|| names.unique(&spec.function));
            stages.push(stage(spec, name, op_of));
            buffers.push(spec.buffer);
        }
        stages.push(Stage::new(names.unique(self.sink.name()), Op::Terminal, Site::Client));
        buffers.push(None);
        let channels = (0..).zip(buffers).map(|(from, buffer)| Channel {
            from: StageId(from),
            to: StageId(from + 1),
            carries: Carries::All,
            buffer,
        });
        Pipeline {
            name: self.name.clone(),
            stages,
            channels: channels.collect(),
            max_in_flight: self.max_in_flight,
        }
    }
}

impl PipelineFile {
    /// The first stage whose function is none of `known`, as an error with its place.
    #[must_use]
    pub fn unknown_function(&self, known: &[&str]) -> Option<FileError> {
        let stage = self.stages.iter().find(|stage| !known.contains(&stage.function.as_str()))?;
        let function = &stage.function;
        let meant = match nearest(function, known.iter().copied()).first() {
            Some(name) => format!("; did you mean `{name}`?"),
            None => ".".to_owned(),
        };
        let known = decode::join(known);
        let message = format!(
            "there is no function `{function}`{meant} This program has {known}. Correct the name, \
             or run over a coordinator (--coordinator) with a worker that registers it"
        );
        Some(FileError { path: self.path.clone(), at: Some(stage.at), message })
    }
}

impl SourceSpec {
    /// The name of its stage.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Lines(_) => "lines",
            Self::Stdin => "stdin",
            Self::Files(_) => "files",
        }
    }
}

impl SinkSpec {
    /// The name of its stage.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File(_) => "file",
        }
    }
}

fn stage(spec: &StageSpec, name: String, op_of: &dyn Fn(&str) -> Option<Op>) -> Stage {
    let op = spec.op.or_else(|| op_of(&spec.function)).unwrap_or(Op::Map);
    Stage {
        function: spec.function.clone(),
        params: spec.params.clone(),
        workers: spec.workers,
        workers_per: spec.workers_per,
        timeout: spec.timeout,
        retries: spec.retries,
        ..Stage::new(name, op, Site::Fleet)
    }
}

/// The names that are taken.
struct Names(BTreeSet<String>);

impl Names {
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut number = 2_u64;
        while !self.0.insert(unique.clone()) {
            unique = format!("{name}-{number}");
            number += 1;
        }
        unique
    }
}
