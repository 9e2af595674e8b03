//! Arguments → logging → command → exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("STATEWAY_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_ansi(stateway::stderr::is_colourful())
        .with_writer(|| stateway::stderr::Lines)
        .init();
    stateway::cli::main()
}
