"""Whether this container can take requests; with as few imports as can be, as it runs often."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "8000")), 4)
try:
    connection.request("GET", "/health/ready")
    answer = connection.getresponse()
except OSError as error:
    sys.exit(f"No answer: {error}")
sys.stdout.write(answer.read().decode())  # docker inspect shows it
sys.exit(answer.status != 200)
