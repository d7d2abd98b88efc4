//! The one binary: hands over to the appliance, which parses the arguments and picks the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    appliance::main()
}
