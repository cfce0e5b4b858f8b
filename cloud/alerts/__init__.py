"""What calls people: alarms that the service raises and clears, webhooks that carry events away.

Must never decide anything about a vehicle.
"""
