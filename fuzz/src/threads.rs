use std::{
    fs,
    time::{Duration, Instant},
};

/// How long threads may take to end once nothing is left for them to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs something and waits until every thread that it started has ended: some, as those that ring a client's eventfd,
/// belong to nobody who waits for them.
///
/// # Panics
/// When one stays. Nothing else may start threads meanwhile.
pub(crate) fn leaving_none<T>(run: impl FnOnce() -> T) -> T {
    let before = count();
    let result = run();
    let end = Instant::now() + PATIENCE;
    while count() > before {
        assert!(Instant::now() < end, "threads stay behind");
        std::thread::sleep(Duration::from_micros(50));
    }
    result
}

/// How many threads the process has.
fn count() -> usize {
    fs::read_dir("/proc/self/task").expect("/proc").count()
}
