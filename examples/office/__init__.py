"""An office of three services. In one process: open http://127.0.0.1:8000/office/orders in a browser, or:

    curl http://127.0.0.1:8000/office/orders/order -H 'content-type: application/json' -d '{"items": {"pen": 2}}'

As three processes: make office

    orders    io: takes an order, calls the others, and has the page
    pricing   cpu: computes the price, which takes a moment
    stock     io, streaming: picks one item after the other

`orders` calls the others' handlers as functions. Where they run is the setting `services`, not a part of the code.
"""

from tinysvc import Service

from . import orders, pricing, stock

service = Service(
    *(
        Service(module, name=name, prefix=f"/{name}")
        for name, module in (("orders", orders), ("pricing", pricing), ("stock", stock))
    )
)
