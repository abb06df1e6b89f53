"""Whether this container is ready; with few imports, as it runs often."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "8000")), 4)
try:
    connection.request("GET", "/health/ready")
    response = connection.getresponse()
except OSError as error:
    sys.exit(f"No response: {error}")
sys.stdout.write(response.read().decode())  # docker inspect shows it
sys.exit(response.status != 200)
