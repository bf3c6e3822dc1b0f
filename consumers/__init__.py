"""Those who take messages out: intake, bot worker and delivery worker."""
