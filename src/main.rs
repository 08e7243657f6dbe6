//! The `hxe` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    hxe::main()
}
