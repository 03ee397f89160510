"""Derivatives, Program to Program. (The public ``facula.autograd`` functions live in tensor/.)"""
