# What the «depot» service is. Every other part of the system reads it here; chassis/service.py describes the keys.
collection = "parcels"
serves = ["shop.depot.v1.DepotService"]
calls = ["user_svc"]
publishes = "parcel"
# [text key]
key = "text"
# [end]
# [reads]
reads = [«reads»]
# [end]
