//! All sources together: the file, the variables over it, defaults for the rest, then the rules between keys.

use std::path::{Path, PathBuf};

use super::error::{Error, Mistake, Origin};
use super::keys::{self, KEYS};
use super::kind::Raw;
use super::{Config, Environment, document};

/// Reads all sources: the configuration, and what is to be warned of.
///
/// # Errors
/// See [`Config::load`].
pub(super) fn read(
    path: Option<&Path>,
    environment: &Environment,
) -> Result<(Config, Vec<String>), Error> {
    let mut loading = Loading::new(environment);
    loading.read_file(path)?;
    loading.complete();
    if loading.mistakes.is_empty() {
        loading.config.source = loading.file;
        Ok((loading.config, loading.warnings))
    } else {
        loading
            .mistakes
            .sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        Err(Error::Mistakes(loading.mistakes))
    }
}

/// As [`read`], with `text` in place of what is in the file: the configuration, and what is wrong with it by now.
pub(super) fn of_text(
    path: Option<&Path>,
    text: &str,
    environment: &Environment,
) -> (Config, Vec<Mistake>) {
    let mut loading = Loading::new(environment);
    loading.file = path.map(Path::to_owned);
    loading.take_text(text);
    loading.complete();
    (loading.config, loading.mistakes)
}

/// What the sources say of one key.
struct Given {
    origin: Origin,
    raw: Raw,
}

/// One pass over all sources.
pub(super) struct Loading<'a> {
    pub(super) environment: &'a Environment,
    file: Option<PathBuf>,
    pub(super) config: Config,
    /// One a key of the table, in its order.
    given: Vec<Option<Given>>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Loading<'a> {
    fn new(environment: &'a Environment) -> Loading<'a> {
        Loading {
            environment,
            file: None,
            config: Config::unset(),
            given: KEYS.iter().map(|_| None).collect(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// All that comes behind the file.
    fn complete(&mut self) {
        self.read_variables();
        self.set_keys();
        self.set_own_defaults();
        self.complete_include();
        self.check();
    }

    fn read_file(&mut self, path: Option<&Path>) -> Result<(), Error> {
        let text = match path {
            Some(path) => {
                self.file = Some(path.to_owned());
                Some(document::read(path)?)
            }
            None => match self.environment.config_path() {
                Some(path) => {
                    let text = document::read_if_there(&path)?;
                    self.file = text.is_some().then_some(path);
                    text
                }
                None => None,
            },
        };
        let (Some(text), Some(file)) = (text, self.file.clone()) else {
            return Ok(());
        };
        self.take_text(&text.content);
        let holds_password = ["password", "password_hash", "metrics_token"]
            .iter()
            .any(|name| self.is_given("api", name));
        self.warnings.extend(text.warnings(&file, holds_password));
        if self.is_given("api", "password") && self.is_given("api", "password_hash") {
            let what = "cannot be set together with password: remove one of the two";
            self.mistake("api", "password_hash", what);
        }
        self.config.text = text.content;
        Ok(())
    }

    fn take_text(&mut self, text: &str) {
        let document = document::parse(text);
        for (line, label, what) in document.mistakes {
            let origin = Origin::File { line };
            self.mistakes
                .push(Mistake::new(&origin, self.file.as_deref(), &label, &what));
        }
        for (index, line, raw) in document.values {
            let origin = Origin::File { line };
            self.given[index] = Some(Given { origin, raw });
        }
    }

    /// Variables come over the file: a password of theirs replaces a hash of the file, and the other way round.
    fn read_variables(&mut self) {
        let mut passwords = 0;
        for variable in self.environment.settings() {
            let known = KEYS.iter().position(|key| key.variable() == variable.name);
            let (Some(index), Ok(value)) = (known, &variable.value) else {
                let what = match known {
                    Some(_) => "is not valid UTF-8".to_owned(),
                    None => keys::unknown_variable(&variable.name),
                };
                let mistake = Mistake::new(&Origin::Variable, None, &variable.name, &what);
                self.mistakes.push(mistake);
                continue;
            };
            let key = &KEYS[index];
            if key.section == "api" && key.name.starts_with("password") {
                passwords += 1;
                if passwords == 1 {
                    self.forget("password");
                    self.forget("password_hash");
                }
            }
            self.given[index] = Some(Given {
                origin: Origin::Variable,
                raw: Raw::Word(value.clone()),
            });
        }
        if passwords > 1 {
            let what = "cannot be set together with HXE_API_PASSWORD: remove one of the two";
            self.mistake("api", "password_hash", what);
        }
    }

    fn set_keys(&mut self) {
        for (index, key) in KEYS.iter().enumerate() {
            let set = match &self.given[index] {
                Some(given) => key.kind.set(&mut self.config, &given.raw),
                None => key.set_default(&mut self.config),
            };
            if let Err(what) = set {
                self.mistake(key.section, key.name, &what);
            }
        }
    }

    /// An ordinary user's programs run as that user, and its directories are below its home.
    fn set_own_defaults(&mut self) {
        let default_pipe = !self.is_given("logs", "pipe_size");
        if default_pipe && (self.config.logs.pipe_size as u64) > self.environment.pipe_max_size {
            // Fits: it becomes smaller.
            self.config.logs.pipe_size = self.environment.pipe_max_size as usize;
        }
        if self.environment.root {
            return;
        }
        self.config
            .programs
            .user
            .clone_from(&self.environment.user_name);
        if !self.is_given("storage", "state_dir") {
            match self.environment.state_dir() {
                Some(path) => self.config.storage.state_dir = path,
                None => self.mistake(
                    "storage",
                    "state_dir",
                    "there is no default, as neither HOME nor XDG_STATE_HOME is set: \
                     set it to an absolute path, here or by HXE_STORAGE_STATE_DIR",
                ),
            }
        }
        let state_dir = &self.config.storage.state_dir;
        let run_dir = self.environment.run_dir(state_dir);
        let log_dir = state_dir.join("log");
        if !self.is_given("storage", "run_dir") {
            self.config.storage.run_dir = run_dir;
        }
        if !self.is_given("storage", "log_dir") {
            self.config.storage.log_dir = log_dir;
        }
    }

    /// An ordinary user's declared programs are beside its own hxe.toml; a relative pattern begins where hxe.toml is.
    fn complete_include(&mut self) {
        let beside = |file: PathBuf, pattern: &str| {
            let file = std::path::absolute(file).ok()?;
            file.parent()?.join(pattern).to_str().map(str::to_owned)
        };
        let usual = self.environment.config_path();
        if !self.environment.root && !self.is_given("programs", "include") {
            let pattern = usual.and_then(|file| beside(file, "programs.d/*.toml"));
            self.config.include = pattern.unwrap_or_default();
            return;
        }
        let pattern = &self.config.include;
        if pattern.is_empty() || pattern.starts_with('/') {
            return;
        }
        match self
            .file
            .clone()
            .or(usual)
            .and_then(|file| beside(file, pattern))
        {
            Some(pattern) => self.config.include = pattern,
            None => {
                let what = "must be an absolute path, as there is no place for hxe.toml";
                self.mistake("programs", "include", what);
            }
        }
    }

    pub(super) fn is_given(&self, section: &str, name: &str) -> bool {
        self.given[keys::index(section, name)].is_some()
    }

    fn forget(&mut self, name: &str) {
        self.given[keys::index("api", name)] = None;
    }

    /// Notes what is wrong with a key, at the place where it was set.
    pub(super) fn mistake(&mut self, section: &str, name: &str, what: &str) {
        let index = keys::index(section, name);
        let key = &KEYS[index];
        let origin = match &self.given[index] {
            Some(given) => given.origin,
            None => Origin::Default,
        };
        let label = match origin {
            Origin::Variable => key.variable(),
            Origin::File { .. } | Origin::Default => key.to_string(),
        };
        self.mistakes
            .push(Mistake::new(&origin, self.file.as_deref(), &label, what));
    }
}
