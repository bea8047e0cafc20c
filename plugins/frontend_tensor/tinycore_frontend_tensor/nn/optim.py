"""Optimizers: parameters, their state and gradients are updated in place, in one schedule a step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinycore.errors import ConfigError, TinycoreError
from tinycore_frontend_tensor import execution, modes
from tinycore_frontend_tensor.tensor import Tensor


class Optimizer:
    """What all optimizers share: the parameters and the learning rate (a tensor, so captured steps see
    changes).

    Raises TinycoreError when there is no parameter that requires gradients.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters = list({id(p): p for p in parameters if p.requires_grad}.values())
        if not self.parameters:
            raise TinycoreError(
                "the optimizer got no parameter that requires gradients",
                hint="pass nn.state.get_parameters(model)",
            )
        if lr < 0 or not math.isfinite(lr):
            raise ConfigError(f"learning rate {lr} is not a positive number")
        device = self.parameters[0].device
        self.lr = Tensor([lr], device=device)

    def set_lr(self, lr: float) -> None:
        """Change the learning rate, also for captured steps."""
        self.lr.assign(Tensor([lr], device=self.lr.device))

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, and run it."""
        with modes.record_gradients(False):
            ready = [(k, p, p.grad.detach()) for k, p in enumerate(self.parameters) if p.grad is not None]
            if not ready:
                raise TinycoreError("step() without gradients", hint="call loss.backward() first")
            touched = self._update(ready)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        execution.realize([*(p for _, p, _ in ready), *touched, *gradients])

    def _update(self, ready: list[tuple[int, Tensor, Tensor]]) -> list[Tensor]:
        """Assign new values to parameters; answers the state tensors that were assigned too."""
        raise NotImplementedError

    def _state(self, like: Tensor) -> Tensor:
        return like.detach().zeros_like().owned()


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, Nesterov momentum and weight decay, as PyTorch's."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        if nesterov and not momentum:
            raise ConfigError("Nesterov momentum needs momentum > 0")
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.velocity = [self._state(p) for p in self.parameters] if momentum else []

    def _update(self, ready: list[tuple[int, Tensor, Tensor]]) -> list[Tensor]:
        touched: list[Tensor] = []
        for position, parameter, gradient in ready:
            old = parameter.detach()
            if self.weight_decay:
                gradient = gradient + old * self.weight_decay
            if self.momentum:
                velocity = self.velocity[position]
                velocity.assign(velocity * self.momentum + gradient)
                touched.append(velocity)
                gradient = gradient + velocity * self.momentum if self.nesterov else velocity
            parameter.assign(old - gradient * self.lr.cast(old.dtype))
        return touched


class AdamW(Optimizer):
    """Adam with decoupled weight decay."""

    _decoupled = True

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.first = [self._state(p) for p in self.parameters]
        self.second = [self._state(p) for p in self.parameters]
        # 1 - beta ** step, advanced in place: a captured step goes on counting. Differences of powers that are
        # almost 1 would not be exact.
        rest = [1 - beta for beta in betas]
        self.corrections, self.decay, self.rest = (
            Tensor(pair, device=self.lr.device) for pair in ([0.0, 0.0], list(betas), rest)
        )

    def _update(self, ready: list[tuple[int, Tensor, Tensor]]) -> list[Tensor]:
        b1, b2 = self.betas
        self.corrections.assign(self.corrections * self.decay + self.rest)
        correction1, correction2 = self.corrections[0:1], self.corrections[1:2].sqrt()
        touched = [self.corrections]
        for position, parameter, gradient in ready:
            old, first, second = parameter.detach(), self.first[position], self.second[position]
            lr = self.lr.cast(old.dtype)
            if self.weight_decay and not self._decoupled:
                gradient = gradient + old * self.weight_decay
            first.assign(first * b1 + gradient * (1 - b1))
            second.assign(second * b2 + gradient * gradient * (1 - b2))
            denominator = second.sqrt() / correction2.cast(old.dtype) + self.eps
            base = old * (1 - lr * self.weight_decay) if self.weight_decay and self._decoupled else old
            parameter.assign(base - lr / correction1.cast(old.dtype) * (first / denominator))
            touched += [first, second]
        return touched


class Adam(AdamW):
    """Adam; weight decay is added to the gradient."""

    _decoupled = False

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
