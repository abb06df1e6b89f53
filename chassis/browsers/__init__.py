"""What browsers ask of responses: who may read them (CORS), and what they may do."""
