"""Reading, checking and listing settings. Each group is beside what it configures;
chassis/service_settings.py puts the groups together.
"""
