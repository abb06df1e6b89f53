"""`make upgrade`: takes a newer template into a checkout that was changed; stdlib and git only."""
