//! Pipeline files: any text is a pipeline that the graph check takes or refuses, or an error that says
//! where and why. Never a panic, never a hang.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stageline::cli::file::PipelineFile;
use stageline_protocol::graph::Graph;

fuzz_target!(|text: &str| {
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| format!("{name}{{x,y}}"));
    match PipelineFile::parse(Path::new("p.yaml"), text, &lookup) {
        Ok(file) => match Graph::new(file.pipeline(&|_| None)) {
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        Err(error) => {
            let at = error.at.expect("a place");
            // To YAML a carriage return ends a line, too.
            let ends = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
            assert!(at.line <= ends + 1, "{error}: only {ends} ends of lines");
            assert!(!error.message.is_empty());
            // An error is for a person to read, however large the file.
            assert!(error.message.len() < 64 << 10, "{} bytes", error.message.len());
        }
    }
});
