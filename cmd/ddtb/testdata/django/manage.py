# The polls of Django's tutorial as a real Django application, on the database that PGDATABASE and the like name.
import sys

from django.core.management import execute_from_command_line
import settings  # noqa: F401  configures Django

execute_from_command_line(sys.argv)
