//! Arguments → logging → command → exit code; nothing else.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: stateway_runtime::device::allocator::Allocator =
    stateway_runtime::device::allocator::Allocator;

fn main() -> ExitCode {
    // A file that may not grow further is an error where it is written, and no reason to be killed.
    #[cfg(target_os = "linux")]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("STATEWAY_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_ansi(stateway_runtime::stderr::is_colourful())
        .with_writer(|| stateway_runtime::stderr::Lines)
        .init();
    stateway::cli::main()
}
