//! A bar for each stage.

use super::Display;
use crate::pipeline::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;
use std::time::Duration;

/// The bar of the stage that runs.
#[derive(Debug, Default)]
pub(super) struct Bar(Mutex<Option<ProgressBar>>);

impl Progress for Bar {
    fn stage(&self, name: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => {
                ProgressBar::new(total).with_style(style("{msg:26} [{bar:30}] {percent:>3}%  {pos} pages  {eta}"))
            }
            None => ProgressBar::new_spinner().with_style(style("{msg:26} {spinner}")),
        };
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Ok(mut current) = self.0.lock()
            && let Some(last) = current.replace(bar)
        {
            last.finish_and_clear();
        }
    }

    fn advance(&self, pages: u64) {
        if let Ok(current) = self.0.lock()
            && let Some(bar) = current.as_ref()
        {
            bar.inc(pages);
        }
    }
}

impl Display for Bar {
    fn finish(&self) {
        if let Ok(mut current) = self.0.lock()
            && let Some(last) = current.take()
        {
            last.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
