"""A shop on the event store: commands with rules, read models, and the state of an order as of any time.

    python3 shop.py create o-1 alice 12.50
    python3 shop.py pay o-1 12.50
    python3 shop.py ship o-1
    python3 shop.py show o-1 [--sequence N | --as-of TIME]
    python3 shop.py status
    python3 shop.py race --orders 20 --clients 10 --commands 40

Needs nothing but Python. Each command reads the state of an order, checks its rule, and appends an event under the
sequence that it read (If-Match). If another client was faster, the server refuses the append, and the command decides
again by the new state. So no rule is ever broken, however many clients there are.
"""

import argparse
import json
import random
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timezone


class RuleBroken(Exception):
    """The state of the order does not permit the command."""


class Conflict(Exception):
    """Another client appended since the state was read."""


class Shop:
    def __init__(self, url, key=None):
        self.url = url.rstrip("/")
        self.key = key

    def request(self, method, path, body=None, headers=None):
        """Returns the status, the JSON and the ETag of a response."""
        headers = dict(headers or {})
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response), response.headers.get("ETag")
        except urllib.error.HTTPError as error:
            return error.code, json.load(error), error.headers.get("ETag")

    def order(self, order, parameters=""):
        """Returns the state of an order, or None, and the tag of its last sequence."""
        path = f"/v1/entities/order_events/{urllib.parse.quote(order, safe='')}{parameters}"
        status, state, tag = self.request("GET", path)
        if status == 404 and state["code"] == "unknown_entity":
            return None, '"0"'
        if status != 200:
            raise RuntimeError(f"{status}: {state['detail']}")
        if not state["complete"]:
            raise RuntimeError("the view does not have all events yet: wait for its first run")
        return state["views"]["orders"], tag

    def append(self, order, tag, kind, **fields):
        """Appends one event, if `tag` is still that of the order's last sequence."""
        # The id makes a retry of this very request count once.
        event = {"event_id": str(uuid.uuid4()), "at": datetime.now(timezone.utc).isoformat(), "kind": kind, **fields}
        path = f"/v1/entities/order_events/{urllib.parse.quote(order, safe='')}/events"
        status, answer, _ = self.request("POST", path, event, {"If-Match": tag})
        if status == 412:
            raise Conflict()
        if status != 200:
            raise RuntimeError(f"{status}: {answer['detail']}")
        return answer["last_sequence"]

    def decide(self, order, rule):
        """Runs `rule` on the state until its event is appended. Returns the sequence of the event."""
        while True:
            state, tag = self.order(order)
            kind, fields = rule(state)
            try:
                return self.append(order, tag, kind, **fields)
            except Conflict:
                continue

    # The commands, with their rules.

    def create_order(self, order, customer, price):
        def rule(state):
            if state is not None:
                raise RuleBroken(f"{order} exists already")
            return "created", {"customer": customer, "amount": price}

        return self.decide(order, rule)

    def pay_order(self, order, amount):
        def rule(state):
            if state is None:
                raise RuleBroken(f"{order} does not exist")
            if state["paid"] > 0:
                raise RuleBroken(f"{order} is paid already")
            if float(state["price"]) != float(amount):
                raise RuleBroken(f"{order} costs {state['price']}, not {amount}")
            return "paid", {"amount": amount}

        return self.decide(order, rule)

    def ship_order(self, order):
        def rule(state):
            if state is None or state["paid"] == 0:
                raise RuleBroken(f"{order} is not paid")
            if state["shipped"] > 0:
                raise RuleBroken(f"{order} is shipped already")
            return "shipped", {}

        return self.decide(order, rule)


def race(shop, orders, clients, commands):
    """Lets clients send random commands for the same orders at the same time. Returns how many succeeded and how many
    broke a rule."""
    done, refused, errors, lock = {"created": 0, "paid": 0, "shipped": 0}, 0, [], threading.Lock()

    def client(number):
        nonlocal refused
        dice = random.Random(number)
        for _ in range(commands):
            order = f"order-{dice.randrange(orders)}"
            kind = dice.choice(list(done))
            try:
                if kind == "created":
                    shop.create_order(order, f"customer-{number}", "9.90")
                elif kind == "paid":
                    shop.pay_order(order, dice.choice(["9.90", "9.90", "1.00"]))
                else:
                    shop.ship_order(order)
                with lock:
                    done[kind] += 1
            except RuleBroken:
                with lock:
                    refused += 1
            except Exception as error:  # The main thread reports it.
                with lock:
                    errors.append(error)
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {**done, "refused": refused}


def main():
    parser = argparse.ArgumentParser(description="A shop on the event store of Trueup.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", help="a key of `trueup key create`, if the server has keys")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="create an order")
    create.add_argument("order")
    create.add_argument("customer")
    create.add_argument("price")
    pay = commands.add_parser("pay", help="pay an order")
    pay.add_argument("order")
    pay.add_argument("amount")
    ship = commands.add_parser("ship", help="ship an order")
    ship.add_argument("order")
    show = commands.add_parser("show", help="show the state of an order, now or of the past")
    show.add_argument("order")
    show.add_argument("--sequence")
    show.add_argument("--as-of")
    commands.add_parser("status", help="show how many orders wait for what")
    racing = commands.add_parser("race", help="send random commands for the same orders from many clients")
    racing.add_argument("--orders", type=int, default=20)
    racing.add_argument("--clients", type=int, default=10)
    racing.add_argument("--commands", type=int, default=40)
    arguments = parser.parse_args()

    shop = Shop(arguments.url, arguments.key)
    try:
        if arguments.command == "create":
            print(shop.create_order(arguments.order, arguments.customer, arguments.price))
        elif arguments.command == "pay":
            print(shop.pay_order(arguments.order, arguments.amount))
        elif arguments.command == "ship":
            print(shop.ship_order(arguments.order))
        elif arguments.command == "show":
            past = {"sequence": arguments.sequence, "as_of": arguments.as_of}
            past = {name: value for name, value in past.items() if value}
            state, _ = shop.order(arguments.order, "?" + urllib.parse.urlencode(past) if past else "")
            print(json.dumps(state))
        elif arguments.command == "status":
            _, answer, _ = shop.request("GET", "/v1/views/orders_by_status/rows.json?shape=rows")
            print(json.dumps(answer[0] if answer else {}))
        else:
            print(json.dumps(race(shop, arguments.orders, arguments.clients, arguments.commands)))
    except RuleBroken as broken:
        print(broken, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
