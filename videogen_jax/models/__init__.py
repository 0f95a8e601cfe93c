"""Networks as pure linen modules. A network knows no noise schedule, no optimizer and no mesh."""
