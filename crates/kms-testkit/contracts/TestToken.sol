// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// A token for tests that can misbehave in the ways of real tokens.
/// Everyone may mint it and change its behavior and decimals: never deploy it on a real chain.
contract TestToken {
    enum TransferBehavior {
        Standard,
        /// transfer returns nothing, like that of USDT.
        NoReturnValue,
        /// transfer moves nothing, and returns false instead of reverting.
        ReturnsFalse,
        /// transfer keeps a tenth of the amount.
        TakesFee,
        /// transfer reverts.
        Reverts,
        /// transfer returns true, moves nothing and logs nothing.
        MovesNothing,
        /// transfer moves nothing, and another contract logs a transfer.
        ForgesLog,
        /// transfer uses all gas that it is given.
        UsesAllGas,
        /// transfer calls the recipient before it moves anything.
        CallsRecipient
    }

    string public symbol;
    uint8 public decimals;
    TransferBehavior public behavior;
    mapping(address => uint256) public balanceOf;
    Forger private forger = new Forger();

    event Transfer(address indexed from, address indexed to, uint256 value);

    constructor(string memory symbol_, uint8 decimals_) {
        symbol = symbol_;
        decimals = decimals_;
    }

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function setBehavior(TransferBehavior behavior_) external {
        behavior = behavior_;
    }

    function setDecimals(uint8 decimals_) external {
        decimals = decimals_;
    }

    /// Logs a transfer that did not happen, in the name of the token itself.
    function log(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        if (behavior == TransferBehavior.ReturnsFalse) return false;
        if (behavior == TransferBehavior.MovesNothing) return true;
        if (behavior == TransferBehavior.Reverts) revert("the token is closed");
        if (behavior == TransferBehavior.UsesAllGas) while (true) {}
        if (behavior == TransferBehavior.ForgesLog) {
            forger.log(msg.sender, to, value);
            return true;
        }
        if (behavior == TransferBehavior.CallsRecipient) {
            (bool done, ) = to.call("");
            require(done, "the recipient refused");
        }
        uint256 kept = behavior == TransferBehavior.TakesFee ? value / 10 : 0;
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value - kept;
        emit Transfer(msg.sender, to, value - kept);
        if (kept > 0) emit Transfer(msg.sender, address(this), kept);
        if (behavior == TransferBehavior.NoReturnValue) {
            assembly {
                return(0, 0)
            }
        }
        return true;
    }
}

/// Logs a transfer from another address than the token's.
contract Forger {
    event Transfer(address indexed from, address indexed to, uint256 value);

    function log(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }
}

/// The used part of Multicall3, which has the same address on most chains.
contract Multicall {
    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; i++) {
            (results[i].success, results[i].returnData) = calls[i].target.call(calls[i].callData);
            require(results[i].success || calls[i].allowFailure, "Multicall3: call failed");
        }
    }

    function getEthBalance(address of_) external view returns (uint256) {
        return of_.balance;
    }
}
