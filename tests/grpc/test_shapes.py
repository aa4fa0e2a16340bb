"""Shapes: the messages and enums inside others."""

from __future__ import annotations

from tinysvc.grpc.shapes import VALUE, EnumShape, Leaf, MessageShape, Slot, contains_itself, named_kinds


def test_kinds_are_found_once_in_their_order() -> None:
    color = EnumShape("Color", [])
    tree = MessageShape("Tree")
    tree.slots = [Slot("child", tree), Slot("color", color), Slot("size", Leaf("int64"))]
    both = Slot("x", form="oneof", members=[Slot("x_tree", tree), Slot("x_color", color)])
    root = MessageShape("Root", [both])
    assert named_kinds(root, tree) == [root, tree, color]
    assert [each.name for each in root.fields()] == ["x_tree", "x_color"]


def test_shape_that_contains_itself() -> None:
    inner = MessageShape("Inner", [Slot("x", Leaf("int64"))])
    both = MessageShape("Both", [Slot("a", inner), Slot("b", inner)])
    tree = MessageShape("Tree")
    tree.slots = [Slot("inner", inner), Slot("child", form="oneof", members=[Slot("child_tree", tree)])]
    assert [contains_itself(each) for each in (inner, both, tree)] == [False, False, True]
    assert contains_itself(MessageShape("Any", [Slot("x", Leaf(VALUE))]))
